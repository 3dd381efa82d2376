package graph

import (
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/platforms"
)

// Op is what a node does. The set is closed.
//
//sumtype:decl
type Op interface{ op() }

// Source is a tree that comes from outside.
type Source struct {
	Kind SourceKind

	// Name is, of a Local source, the name of the directory within this build;
	// else what the user wrote, for people.
	Name string

	// Layers are those of an Image.
	Layers []ImageLayer
}

// ImageLayer is one layer of an image that was resolved.
type ImageLayer struct {
	DiffID digest.Digest
	Blob   content.Descriptor
}

// SourceKind says where a source comes from.
type SourceKind string

// The kinds of source. A Local source has no digest that could be known: nodes
// read it by path only, and what they read enters their keys.
const (
	Scratch SourceKind = "scratch" // the empty tree
	Image   SourceKind = "image"
	Local   SourceKind = "local"
)

// Exec runs a command in its first input, which it reads whole.
type Exec struct {
	Args []string
	Env  []string // visible ARGs included
	Dir  string   // absolute
	User string   // as in USER; empty is root

	Platform platforms.Platform
	Mounts   []Mount
	Network  NetworkMode
	Security SecurityMode
	Hostname string
	Hosts    []Host
	ShmSize  int64
	Ulimits  []Ulimit

	// Proxy holds environment variables that are not part of the definition.
	Proxy []string

	// CgroupParent is not part of the definition.
	CgroupParent string
}

// Mount is one RUN --mount.
type Mount struct {
	Type     MountType
	Target   string // absolute, except that of a secret that is only in Env
	Input    int    // index in the node's inputs of what is mounted; 0 is none
	Source   string // absolute path in that input
	ReadOnly bool

	ID       string  // cache, secret, ssh
	Sharing  Sharing // cache
	Size     int64   // tmpfs: bytes, 0 is unlimited
	Mode     uint32  // cache, secret, ssh; 0 of a cache with an input: owner and mode of its source
	UID, GID uint32  // cache, secret, ssh
	Env      string  // secret: name of the variable
	Required bool    // secret, ssh
}

// MountType is the type= of a RUN --mount.
type MountType string

// The mount types.
const (
	MountBind   MountType = "bind"
	MountCache  MountType = "cache"
	MountTmpfs  MountType = "tmpfs"
	MountSecret MountType = "secret"
	MountSSH    MountType = "ssh"
)

// Sharing is the sharing= of a cache mount.
type Sharing string

// How cache mounts are shared between steps that run at once.
const (
	SharingShared  Sharing = "shared"
	SharingPrivate Sharing = "private"
	SharingLocked  Sharing = "locked"
)

// NetworkMode is the --network of a RUN.
type NetworkMode string

// The network modes. NetworkDefault is the host's network too, with a key of
// its own, and needs no entitlement (INVARIANTS 17).
const (
	NetworkDefault NetworkMode = "default"
	NetworkNone    NetworkMode = "none"
	NetworkHost    NetworkMode = "host"
)

// SecurityMode is the --security of a RUN.
type SecurityMode string

// The security modes.
const (
	SecuritySandbox  SecurityMode = "sandbox"
	SecurityInsecure SecurityMode = "insecure"
)

// Host is an additional line of /etc/hosts. Its address is not part of the
// definition.
type Host struct{ Name, IP string }

// Ulimit is a resource limit of an Exec; -1 is unlimited.
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// Copy writes files into its first input, which it reads whole, or, with Link,
// into an empty tree. It makes exactly one layer.
type Copy struct {
	// Link says that there is no base: Inputs has sources only, Dest's symbolic
	// links are not followed. A Stack puts the result on a base.
	Link bool

	Sources []CopySource

	// Dest is absolute and clean. DestDir says that it was written as a
	// directory (with a slash at its end): what is copied goes into it.
	Dest    string
	DestDir bool

	Owner Owner

	// Mode is the --chmod: empty, octal digits, or symbolic ("u=rwX,go=rX").
	Mode string

	// Unpack says to extract sources that are tar archives, compressed or not,
	// recognised by their content.
	Unpack bool
}

// CopySource is one source of a Copy: files of an input, or an inline file.
type CopySource struct {
	Inline  *Inline
	Input   int     // index in the node's inputs
	Request Request // one of the requests of that input's Select
}

// Inline is a file or directory that the Dockerfile itself contains: a heredoc,
// or a WORKDIR.
type Inline struct {
	// Name is the file's name where Dest is a directory, as that of a copied
	// file is; it is empty where Dest itself is meant (WORKDIR).
	Name string
	Dir  bool
	Mode uint32 // permission bits
	Data []byte
}

// Owner says whom copied files belong to. The zero Owner says nothing: then
// files of a local context and inline ones belong to 0:0, while those that are
// copied from another tree keep their owners, as in BuildKit.
type Owner struct {
	// User and Group are names or numbers; Group may be empty: then it is the
	// user's primary group if User is a name, else the same number.
	User, Group string

	// Input is the index of the input whose passwd and group resolve names. It
	// is read by path where it isn't the base.
	Input int
}

// Named reports whether o has a name in it, so that passwd or group is needed.
func (o Owner) Named() bool {
	number := func(s string) bool { return strings.Trim(s, "0123456789") == "" }
	return !number(o.User) || !number(o.Group)
}

// Stack puts the trees of its inputs on top of one another, the first one
// lowest. It runs nothing.
type Stack struct{}

func (Source) op() {}
func (Exec) op()   {}
func (Copy) op()   {}
func (Stack) op()  {}
