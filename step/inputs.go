package step

import "slices"

// An Input is one thing that the user can set, as an input of the step or as
// a flag of the build command: two spellings of the same. The table of inputs
// is the only list there is: variables, flags, their help and the manual are
// made from it or checked against it.
type Input struct {
	Name    string // as an input; empty: there is only the flag
	Flag    string // as a flag; empty: there is only the input
	Short   string // one letter, or empty
	Arg     string // what the flag's value is called in help; empty: nothing better than its kind
	Kind    Kind
	Default string // as the user would write it
	Env     string // variable that is read if neither input nor flag is given
	Group   Group
	Help    string // one sentence

	set func(*loader, string) error // called for each item
}

// Kind says how the text of an input becomes items.
type Kind uint8

// The kinds of input. Flags of the kinds Lines, Raw and List may be repeated.
const (
	Text  Kind = iota // the whole text is one item
	Bool              // true or false
	Lines             // one item a line, in CSV quotes where it needs them
	Raw               // one item a line, quotes are its own business
	List              // as Lines, and commas separate items too
)

// Group is a heading in the help.
type Group string

// The groups, in the order of the help. Inputs without a group exist so that
// what they ask for is refused or explained, and are not advertised.
const (
	GroupWhat     Group = "What to build"
	GroupOutput   Group = "Where it goes"
	GroupCache    Group = "Cache"
	GroupRun      Group = "RUN instructions"
	GroupRegistry Group = "Registries"
	GroupLog      Group = "Log and results"
	GroupEngine   Group = "This machine"
)

// Groups returns the groups in the order of the help.
func Groups() []Group {
	return []Group{GroupWhat, GroupOutput, GroupCache, GroupRun, GroupRegistry, GroupLog, GroupEngine}
}

// Inputs returns the table of inputs.
func Inputs() []Input { return slices.Concat(inputs, otherInputs) }

var inputs = []Input{
	{
		Name: "context", Group: GroupWhat, Default: ".", set: text(func(c *Config) *string { return &c.Context }),
		Help: "Directory of the build context, or - for a tar archive or a Dockerfile on standard input.",
	},
	{
		Name: "file", Flag: "file", Short: "f", Arg: "PATH", Group: GroupWhat, set: setFile,
		Help: "Dockerfile, or - for standard input; default: Dockerfile in the context.",
	},
	{
		Name: "target", Flag: "target", Arg: "STAGE", Group: GroupWhat, set: text(func(c *Config) *string { return &c.Request.Target }),
		Help: "Stage to build; default: the last.",
	},
	{
		Name: "build-args", Flag: "build-arg", Arg: "NAME[=VALUE]", Kind: Lines, Group: GroupWhat, set: setBuildArg,
		Help: "Value of an ARG; without =VALUE it is that of the environment variable NAME.",
	},
	{
		Name: "platforms", Flag: "platform", Arg: "OS/ARCH", Kind: List, Env: "DOCKER_DEFAULT_PLATFORM", Group: GroupWhat, set: setPlatform,
		Help: "Platform to build for; several make an index.",
	},
	{
		Name: "labels", Flag: "label", Arg: "NAME=VALUE", Kind: Lines, Group: GroupWhat, set: setLabel,
		Help: "Label of the image; overrides the Dockerfile's.",
	},
	{
		Name: "tags", Flag: "tag", Short: "t", Arg: "NAME[:TAG]", Kind: List, Group: GroupOutput, set: setTag,
		Help: "Name of the image, with its registry if it is pushed.",
	},
	{
		Name: "push", Flag: "push", Kind: Bool, Default: "false", Group: GroupOutput, set: boolean(func(l *loader) *bool { return &l.push }),
		Help: "Push the image under all its tags; short for --output type=registry.",
	},
	{
		Name: "outputs", Flag: "output", Short: "o", Arg: "SPEC", Kind: Raw, Group: GroupOutput, set: setOutput,
		Help: "type=image|registry|oci|docker|local|tar|cacheonly,dest=PATH; a path alone is a local directory, - a tar on standard output.",
	},
	{
		Name: "no-cache", Flag: "no-cache", Kind: Bool, Default: "false", Group: GroupCache, set: boolean(func(l *loader) *bool { return &l.Request.NoCache }),
		Help: "Run every step, whatever is recorded.",
	},
	{
		Name: "no-cache-filters", Flag: "no-cache-filter", Arg: "STAGE", Kind: List, Group: GroupCache,
		set:  items(func(c *Config) *[]string { return &c.Request.NoCacheStages }),
		Help: "Run every step of a stage, whatever is recorded.",
	},
	{
		Name: "pull", Flag: "pull", Kind: Bool, Default: "false", Group: GroupCache, set: boolean(func(l *loader) *bool { return &l.Request.Pull }),
		Help: "Ask registries what base images are, even where the answer is known from before.",
	},
	{
		Name: "add-hosts", Flag: "add-host", Arg: "NAME:IP", Kind: List, Group: GroupRun, set: setHost,
		Help: "Line for /etc/hosts.",
	},
	{
		Name: "network", Flag: "network", Arg: "MODE", Default: "default", Group: GroupRun, set: setNetwork,
		Help: "Network of RUN: default, none or host.",
	},
	{
		Name: "shm-size", Flag: "shm-size", Arg: "SIZE", Group: GroupRun, set: setShmSize,
		Help: "Size of /dev/shm, such as 128m; default: 64m.",
	},
	{
		Name: "ulimit", Flag: "ulimit", Arg: "NAME=SOFT[:HARD]", Kind: Lines, Group: GroupRun, set: setUlimit,
		Help: "Resource limit, such as nofile=1024:2048; -1 is unlimited.",
	},
	{
		Name: "cgroup-parent", Flag: "cgroup-parent", Arg: "PATH", Group: GroupRun, set: text(func(c *Config) *string { return &c.Request.CgroupParent }),
		Help: "Parent cgroup of containers.",
	},
	{
		Name: "registry-mirrors", Flag: "registry-mirror", Arg: "HOST=URL", Kind: List, Group: GroupRegistry, set: setMirror,
		Help: "Mirror to ask before a registry, such as docker.io=https://mirror.example.",
	},
	{
		Name: "insecure-registries", Flag: "insecure-registry", Arg: "HOST[:PORT]", Kind: List, Group: GroupRegistry, set: setInsecure,
		Help: "Registry that may be spoken to by plain http or with any certificate.",
	},
	{
		Name: "progress", Flag: "progress", Arg: "MODE", Default: "auto", Env: "BUILDKIT_PROGRESS", Group: GroupLog, set: setProgress,
		Help: "Log as auto, plain, tty, rawjson or quiet.",
	},
	{
		Flag: "quiet", Short: "q", Kind: Bool, Group: GroupLog, set: boolean(func(l *loader) *bool { return &l.Quiet }),
		Help: "Print nothing but the image ID.",
	},
	{
		Name: "metadata-file", Flag: "metadata-file", Arg: "PATH", Group: GroupLog, set: text(func(c *Config) *string { return &c.MetadataFile }),
		Help: "Write what is known of the image as JSON, with BuildKit's keys.",
	},
	{
		Name: "iidfile", Flag: "iidfile", Arg: "PATH", Group: GroupLog, set: text(func(c *Config) *string { return &c.ImageIDFile }),
		Help: "Write the image ID.",
	},
	{
		Name: "root", Flag: "root", Arg: "DIR", Env: "SLIPWAY_ROOT", Group: GroupEngine, set: text(func(c *Config) *string { return &c.Root }),
		Help: "State directory, which is kept between builds; default: slipway in the user's cache directory.",
	},
	{
		Name: "max-parallelism", Flag: "max-parallelism", Arg: "N", Default: "0", Group: GroupEngine, set: setJobs,
		Help: "How many steps may run at once; 0 is one per CPU.",
	},
}

// otherInputs are those of build-push-action and flags of docker buildx build
// that this version does not do, or that ask for nothing here. They exist so
// that each has an answer of its own.
var otherInputs = []Input{
	{Name: "load", Flag: "load", Kind: Bool, set: setLoad},

	{Name: "secrets", Flag: "secret", Kind: Raw, set: unsupported()},
	{Name: "secret-envs", Kind: List, set: unsupported()},
	{Name: "secret-files", Kind: Raw, set: unsupported()},
	{Name: "ssh", Flag: "ssh", Kind: Raw, set: unsupported()},
	{Name: "allow", Flag: "allow", Kind: List, set: unsupported()},
	{Name: "build-contexts", Flag: "build-context", Kind: Lines, set: unsupported()},
	{Name: "cache-from", Flag: "cache-from", Kind: Raw, set: unsupported()},
	{Name: "cache-to", Flag: "cache-to", Kind: Raw, set: unsupported()},
	{Name: "annotations", Flag: "annotation", Kind: Lines, set: unsupported()},
	{Name: "attests", Flag: "attest", Kind: Raw, set: unsupported()},
	{Name: "provenance", Flag: "provenance", set: unsupported("false", "disabled=true")},
	{Name: "sbom", Flag: "sbom", set: unsupported("false", "disabled=true")},
	{Name: "call", Flag: "call", set: unsupported("build")},
	{Flag: "check", Kind: Bool, set: unsupported("false")},
	{Flag: "print", set: unsupported()},
	{Flag: "invoke", set: unsupported()},
	{Flag: "detach", Kind: Bool, set: unsupported("false")},
	{Flag: "server-config", set: unsupported()},
	{Flag: "policy", Kind: Raw, set: unsupported()},
	{Flag: "resource", Kind: Raw, set: unsupported()},
	{Flag: "isolation", set: unsupported("default")},
	{Flag: "squash", Kind: Bool, set: unsupported("false")},
	{Flag: "stream", Kind: Bool, set: unsupported("false")},
	{Flag: "security-opt", Kind: Raw, set: unsupported()},
	{Flag: "memory", Short: "m", set: unsupported()},
	{Flag: "memory-swap", set: unsupported()},
	{Flag: "cpu-period", set: unsupported()},
	{Flag: "cpu-quota", set: unsupported()},
	{Flag: "cpu-shares", Short: "c", set: unsupported()},
	{Flag: "cpuset-cpus", set: unsupported()},
	{Flag: "cpuset-mems", set: unsupported()},

	{Name: "builder", Flag: "builder", set: ignored("there are no builder instances: the build runs in this process")},
	{Name: "github-token", set: ignored("it is only used for git contexts, and the context is a directory")},
	{Flag: "rm", Kind: Bool, set: ignored("there are no intermediate containers")},
	{Flag: "force-rm", Kind: Bool, set: ignored("there are no intermediate containers")},
	{Flag: "compress", Kind: Bool, set: ignored("the context is read where it is and not sent anywhere")},
	{Flag: "debug", Short: "D", Kind: Bool, set: ignored("there is no more to log")},
	{Flag: "disable-content-trust", Kind: Bool, set: ignored("signatures of base images are not checked")},
}
