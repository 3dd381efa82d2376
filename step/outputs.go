package step

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/slipway-build/slipway/ci"
	"github.com/slipway-build/slipway/engine"
)

// deliver hands over what the build resulted in: to files, to later steps of
// the pipeline, with --quiet to standard output.
func (c Config) deliver(res engine.Result, env Env) error {
	metadata, err := metadataJSON(res)
	if err != nil {
		return err
	}
	id := c.imageID(res)
	if c.MetadataFile != "" {
		if err := writeFile(c.MetadataFile, metadata); err != nil {
			return fmt.Errorf("write metadata: %w", err)
		}
	}
	if c.ImageIDFile != "" {
		if id == "" {
			return errors.New("write image ID: no output makes an image")
		}
		if err := writeFile(c.ImageIDFile, []byte(id)); err != nil {
			return fmt.Errorf("write image ID: %w", err)
		}
	}
	if c.Quiet && id != "" && !c.streams() {
		if _, err := io.WriteString(env.Stdout, id+"\n"); err != nil {
			return fmt.Errorf("print image ID: %w", err)
		}
	}
	return env.Dialect.SetOutputs([]ci.Output{
		{Name: "digest", Value: res.Digest.String()},
		{Name: "imageid", Value: id},
		{Name: "metadata", Value: string(metadata)},
	})
}

// imageID returns the digest of the config, or of the index if there are
// several platforms; empty if no output made an image.
func (c Config) imageID(res engine.Result) string {
	if len(c.Request.Platforms) > 1 || res.Config == "" {
		return res.Digest.String()
	}
	return res.Config.String()
}

// streams reports whether an output goes to standard output.
func (c Config) streams() bool {
	for _, o := range c.Request.Outputs {
		if o.Attrs["dest"] == "-" {
			return true
		}
	}
	return false
}

func metadataJSON(res engine.Result) ([]byte, error) {
	m := res.Metadata
	if m == nil {
		m = map[string]any{}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("encode metadata: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// removeStale removes the results of an earlier build, so that nobody takes
// them for those of this one if it fails.
func (c Config) removeStale() error {
	for _, name := range []string{c.MetadataFile, c.ImageIDFile} {
		fi, err := os.Lstat(name)
		if err != nil || !fi.Mode().IsRegular() {
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// writeFile writes a file that is whole whenever it can be seen: under another
// name first. What is there and no regular file, such as /dev/stdout, is
// written to instead of replaced.
func writeFile(name string, data []byte) (err error) {
	if fi, err := os.Stat(name); err == nil && !fi.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		return errors.Join(err, f.Close())
	}
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	tmp := filepath.Join(filepath.Dir(name), ".slipway-"+rand.Text())
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp))
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
