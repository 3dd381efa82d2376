package export

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// output is a file to write: one that the caller opened, or the one at path,
// which appears when it is complete.
type output struct {
	path string
	file io.WriteCloser
}

// write calls fill with where to write to.
func (o output) write(fill func(io.Writer) error) error {
	if o.file != nil {
		return writeAndClose(o.file, fill)
	}
	path := o.path
	if p, err := filepath.EvalSymlinks(path); err == nil {
		path = p // what a link leads to is replaced, not the link
	}
	switch fi, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case fi.IsDir():
		return fmt.Errorf("%s is a directory", o.path)
	case !fi.Mode().IsRegular(): // a pipe or a device
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return writeAndClose(f, fill)
	}
	f, err := createBeside(path)
	if err != nil {
		return err
	}
	// Closing it gives up the lock, so by then it has its name.
	err = writeAndClose(f, fill, f.Sync, func() error { return os.Rename(f.Name(), path) })
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// writeAndClose fills w, runs finish and closes.
func writeAndClose(w io.WriteCloser, fill func(io.Writer) error, finish ...func() error) error {
	b := bufio.NewWriterSize(w, 256<<10)
	err := fill(b)
	if err == nil {
		err = b.Flush()
	}
	for _, f := range finish {
		if err == nil {
			err = f()
		}
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	return err
}
