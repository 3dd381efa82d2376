package engine_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/slipway-build/slipway/engine"
)

// What a build writes into a cache mount, and records that it writes aside,
// vanish while they are being measured.
func TestDiskUsage_WhileFilesComeAndGo(t *testing.T) {
	root := t.TempDir()
	dirs := []string{
		filepath.Join(root, "mounts", "m.0", "fs"), filepath.Join(root, "records", "keys", "00"),
		filepath.Join(root, "content", "blobs", "sha256"),
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- churn(dirs, stop) }()
	for range 50 {
		if _, err := engine.DiskUsage(t.Context(), root); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// churn makes and removes files and directories in dirs until stop is closed.
func churn(dirs []string, stop chan struct{}) error {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return nil
		default:
		}
		for _, d := range dirs {
			sub := filepath.Join(d, fmt.Sprint("d", i%50))
			err := errors.Join(os.MkdirAll(sub, 0o700), os.WriteFile(filepath.Join(sub, "f"), nil, 0o600), os.WriteFile(filepath.Join(d, fmt.Sprint("f", i%50)), nil, 0o600))
			if err != nil {
				return err
			}
		}
		if i%50 < 25 {
			continue
		}
		for _, d := range dirs {
			for j := range 50 {
				err := errors.Join(os.RemoveAll(filepath.Join(d, fmt.Sprint("d", j))), os.RemoveAll(filepath.Join(d, fmt.Sprint("f", j))))
				if err != nil {
					return err
				}
			}
		}
	}
}
