package main

import (
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite expectations in scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"slipway": main})
}

// TestScript runs the binary as a person or a pipeline would: one script, one
// story. Scripts find a registry of their own at $REGISTRY, whose library has
// the base images of testdata/bases, and their own state directory.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("..", "..", "testdata", "script"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			registry, err := startRegistry(env)
			if err != nil {
				return err
			}
			out := filepath.Join(env.WorkDir, ".outputs")
			env.Vars = append(env.Vars,
				"REGISTRY="+registry, "SLIPWAY_ROOT="+filepath.Join(env.WorkDir, ".state"),
				"HOME="+env.WorkDir, "OUTPUTS="+out, "BROKEN="+startBroken(env),
			)
			return os.WriteFile(out, nil, 0o600)
		},
		Condition: condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  cmdExits,
			"output": cmdOutput,
		},
	})
}

// bases is where testdata/bases/make leaves the base images.
func bases() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "slipway-test", "bases")
}

// condition knows [sandbox], for scripts that run containers, and [bases], for
// those that need base images.
func condition(cond string) (bool, error) {
	switch cond {
	case "sandbox":
		return os.Geteuid() == 0, nil
	case "bases":
		_, err := os.Stat(bases())
		return err == nil, nil
	}
	return false, errors.New("unknown condition")
}

// startRegistry starts an in-memory registry and returns its address.
func startRegistry(env *testscript.Env) (string, error) {
	dir := filepath.Join(env.WorkDir, ".registry")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	if err := os.Symlink(bases(), filepath.Join(dir, "library")); err != nil {
		return "", err
	}
	conf := config.Config{
		Storage: config.ConfigStorage{StoreType: config.StoreMem, RootDir: dir},
		Log:     slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	conf.SetDefaults()
	registry := olareg.New(conf)
	server := httptest.NewServer(registry)
	env.Defer(func() {
		server.Close()
		_ = registry.Close()
	})
	return strings.TrimPrefix(server.URL, "http://"), nil
}

// startBroken starts a registry in which every repository is a number, and
// everything about it has that HTTP status; it returns its address.
func startBroken(env *testscript.Env) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusOK
		if parts := strings.Split(r.URL.Path, "/"); len(parts) > 2 {
			if n, err := strconv.Atoi(parts[2]); err == nil && n >= 100 && n < 600 {
				status = n
			}
		}
		if r.Header.Get("Authorization") == "" && status == http.StatusForbidden {
			status = http.StatusUnauthorized // who asks without credentials is told so first
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="broken"`)
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(status)
	}))
	env.Defer(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// cmdExits is "exits CODE COMMAND…": the command ends with that exit code.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Check(err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// cmdOutput is "output NAME REGEXP": the step has set output NAME, last, to
// something that matches.
func cmdOutput(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] output name regexp")
	}
	got, given := "", false
	for rest := ts.ReadFile(ts.Getenv("OUTPUTS")); rest != ""; {
		head, after, _ := strings.Cut(rest, "\n")
		name, end, ok := strings.Cut(head, "<<")
		value, after, closed := strings.Cut(after, "\n"+end+"\n")
		if !ok || !closed {
			ts.Fatalf("malformed outputs: %s", rest)
		}
		if name == args[0] {
			got, given = value, true
		}
		rest = after
	}
	re, err := regexp.Compile(args[1])
	ts.Check(err)
	if (given && re.MatchString(got)) == neg {
		ts.Fatalf("output %s is %q", args[0], got)
	}
}
