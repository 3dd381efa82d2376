package run_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/inroot"
	"github.com/slipway-build/slipway/engine/run"
)

func get(t *testing.T, s *run.Caches, m run.CacheMount) *run.Cache {
	t.Helper()
	if m.Fill == nil {
		m.Fill = func(*inroot.Root) error { return nil }
	}
	if m.Mode == 0 {
		m.Mode = 0o755
	}
	c, err := s.Get(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCaches_WhatMakesAMountAnother(t *testing.T) {
	base := run.CacheMount{ID: "/cache", Sharing: graph.SharingShared}
	tests := []struct {
		name   string
		change func(*run.CacheMount)
		same   bool
	}{
		{"nothing", func(*run.CacheMount) {}, true},
		{"sharing", func(m *run.CacheMount) { m.Sharing = graph.SharingLocked }, true},
		{"id", func(m *run.CacheMount) { m.ID = "/other" }, false},
		{"user", func(m *run.CacheMount) { m.UID = 10 }, false},
		{"group", func(m *run.CacheMount) { m.GID = 10 }, false},
		{"mode", func(m *run.CacheMount) { m.Mode = 0o777 }, false},
		{"what it starts from", func(m *run.CacheMount) { m.From = "tree" }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &run.Caches{Dir: t.TempDir()}
			a := get(t, s, base)
			a.Release()
			m := base
			tt.change(&m)
			b := get(t, s, m)
			b.Release()
			if (a.Dir == b.Dir) != tt.same {
				t.Errorf("%s and %s: same is %v, want %v", a.Dir, b.Dir, a.Dir == b.Dir, tt.same)
			}
		})
	}
}

func TestCaches_FilledOnceAndWhole(t *testing.T) {
	s := &run.Caches{Dir: t.TempDir()}
	bad := errors.New("no space left")
	m := run.CacheMount{ID: "c", Mode: 0o700, Fill: func(dst *inroot.Root) error {
		if err := dst.MkdirAll("half", 0o755, nil); err != nil {
			return err
		}
		return bad
	}}
	if _, err := s.Get(t.Context(), m); !errors.Is(err, bad) {
		t.Fatalf("err = %v, want %v", err, bad)
	}
	fills := 0
	m.Fill = func(dst *inroot.Root) error {
		fills++
		return dst.MkdirAll("whole", 0o755, nil)
	}
	for range 2 {
		c := get(t, s, m)
		c.Release()
		entries, err := os.ReadDir(c.Dir)
		if err != nil || len(entries) != 1 || entries[0].Name() != "whole" {
			t.Errorf("the mount has %v, %v", entries, err)
		}
		if fi, err := os.Stat(c.Dir); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("mode = %v, %v", fi.Mode(), err)
		}
	}
	if fills != 1 {
		t.Errorf("filled %d times after the failure, want 1", fills)
	}
}

func TestCaches_Sharing(t *testing.T) {
	s := &run.Caches{Dir: t.TempDir()}
	shared := run.CacheMount{ID: "shared", Sharing: graph.SharingShared}
	a, b := get(t, s, shared), get(t, s, shared)
	if a.Dir != b.Dir {
		t.Errorf("shared mounts differ: %s, %s", a.Dir, b.Dir)
	}
	a.Release()
	b.Release()

	private := run.CacheMount{ID: "private", Sharing: graph.SharingPrivate}
	a, b = get(t, s, private), get(t, s, private)
	if a.Dir == b.Dir {
		t.Errorf("a private mount was given to two steps: %s", a.Dir)
	}
	a.Release()
	b.Release()
	if c := get(t, s, private); c.Dir != a.Dir {
		t.Errorf("a private mount that is free was not used again")
	}
}

func TestCaches_LockedWaits(t *testing.T) {
	s := &run.Caches{Dir: t.TempDir()}
	locked := run.CacheMount{ID: "locked", Sharing: graph.SharingLocked}
	held := get(t, s, locked)

	// Whoever gives up waiting gets the reason why.
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	m := locked
	m.Mode = 0o755
	m.Waiting = func(string) { cancel(stop) }
	if _, err := s.Get(ctx, m); !errors.Is(err, stop) {
		t.Errorf("err = %v, want %v", err, stop)
	}

	m.Waiting = func(string) { held.Release() }
	c, err := s.Get(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	c.Release()
	if c.Dir != held.Dir {
		t.Error("waited for the mount and got another")
	}
}

func TestCaches_NoteTheirUse(t *testing.T) {
	s := &run.Caches{Dir: t.TempDir()}
	c := get(t, s, run.CacheMount{ID: "c"})
	c.Release()
	dir := filepath.Dir(c.Dir)
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(dir, old, old); err != nil {
		t.Fatal(err)
	}
	get(t, s, run.CacheMount{ID: "c"}).Release()
	if fi, err := os.Stat(dir); err != nil || !fi.ModTime().After(old.Add(time.Minute)) {
		t.Errorf("last use is %v, %v", fi.ModTime(), err)
	}
}
