package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A disk is a file system of which one can say how much fits.
type disk struct {
	*rig
	dir string
}

// newDisk mounts one.
func newDisk(r *rig) *disk {
	r.Helper()
	d := &disk{r, r.TempDir()}
	if err := unix.Mount("tmpfs", d.dir, "tmpfs", 0, "size=8g"); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if err := unix.Unmount(d.dir, unix.MNT_DETACH); err != nil {
			r.Error(err)
		}
	})
	return d
}

// leave makes the disk so small that only so many bytes are left.
func (d *disk) leave(bytes int64) {
	d.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		d.Fatal(err)
	}
	used := int64(st.Blocks-st.Bfree) * st.Bsize
	size := "size=" + strconv.FormatInt(used+bytes, 10)
	if err := unix.Mount("tmpfs", d.dir, "tmpfs", unix.MS_REMOUNT, size); err != nil {
		d.Fatal(err)
	}
}

// TestFullDisk builds where there is not enough room for one thing, and then
// where there is.
func TestFullDisk(t *testing.T) {
	needSandbox(t)
	t.Parallel()
	dir := contexts(t)
	fill := "ARG BASE\nFROM $BASE AS base\nRUN mkdir /o; dd if=/dev/zero of=/o/f bs=1000000 count=4 && touch -d @1000000000 /o/f\nFROM scratch\nCOPY --from=base /o/f /\n"
	writeOld(t, filepath.Join(dir, "fill", "Dockerfile"), fill)
	const lots = 4 << 30
	for _, test := range []struct {
		name    string
		context string
		first   string // is built before the disk is full
		left    int64
		output  string
		disk    string // state or output
		want    string
	}{
		{"unpacking", "unpack", "", 1 << 20, "type=oci,dest=out", "state", `unpack layer \w+: less than 1 GiB is free in \S+: no space left on device`},
		{"running", "fill", "unpack", 1 << 20, "type=oci,dest=out", "state", `No space left on device(.|\n)*hint: The disk of \S+ is full`},
		{"copying", "big", "", 1 << 20, "type=oci,dest=out", "state", `COPY data(.|\n)*no space left on device`},
		{"packing", "big", "", 14 << 20, "type=oci,dest=out", "state", `pack layer \S+: .*: no space left on device`},
		{"opening", "big", "", 4096, "type=oci,dest=out", "state", `open state directory.*no space left on device`},
		{"writing an oci tar", "big", "", 1 << 20, "type=oci,dest=DISK/out", "output", `write \S+/out: .*no space left on device`},
		{"writing an oci directory", "big", "", 1 << 20, "type=oci,dest=DISK/out,tar=false", "output", `write \S+/out: .*no space left on device`},
		{"writing a docker tar", "big", "", 1 << 20, "type=docker,dest=DISK/out", "output", `write \S+/out: .*no space left on device`},
		{"writing a directory", "big", "", 1 << 20, "type=local,dest=DISK/out", "output", `write \S+/out: .*no space left on device`},
		{"writing a tar", "big", "", 1 << 20, "type=tar,dest=DISK/out", "output", `write \S+/out: .*no space left on device`},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.contexts = dir
			d := newDisk(r)
			if test.disk == "state" {
				r.state = filepath.Join(d.dir, "state")
			}
			if test.first != "" {
				r.mustRun("build", "--build-arg", baseArg, "CONTEXTS/"+test.first)
			}
			output := strings.ReplaceAll(test.output, "DISK", d.dir)
			args := []string{"build", "--metadata-file", "meta.json", "--build-arg", baseArg, "-o", output, "CONTEXTS/" + test.context}
			d.leave(test.left)
			code, log := r.run(args...)
			if code != 1 || !regexp.MustCompile(test.want).MatchString(log) {
				t.Errorf("exit code %d, want 1 and %q\n%s", code, test.want, log)
			}
			// Of a layout the index comes last.
			for _, name := range []string{"out", "out/index.json"} {
				for _, in := range []string{d.dir, r.dir} {
					fi, err := os.Stat(filepath.Join(in, name))
					if err == nil && (fi.Mode().IsRegular() || strings.HasPrefix(output, "type=local")) {
						t.Errorf("%s is there", name)
					}
				}
			}
			r.tidy()
			r.whole()
			r.noStage(r.dir)
			if test.disk == "output" {
				r.noStage(d.dir)
			}
			r.notMounted()
			d.leave(lots)
			r.mustRun(args...)
			if r.digest("meta.json") == "" && strings.HasPrefix(output, "type=oci") {
				t.Error("there is no digest")
			}
			r.tidy()
			r.whole()
		})
	}
}
