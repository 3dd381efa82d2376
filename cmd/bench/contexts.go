package main

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// newRand returns a source that gives the same data on every machine.
func newRand(name string) *rand.ChaCha8 {
	var seed [32]byte
	copy(seed[:], name)
	return rand.NewChaCha8(seed)
}

// smallFiles writes n files of 100 to 8000 bytes into dir, 100 a directory.
func smallFiles(dir string, n int) error {
	src := newRand("small files")
	r := rand.New(src)
	for i := range n {
		sub := filepath.Join(dir, fmt.Sprintf("d%03d", i/1000), fmt.Sprintf("d%02d", i/100%10))
		if i%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		// Skewed as source trees are: many small files, few large ones.
		size := 100 + r.IntN(1+r.IntN(8000))
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%05d.txt", i)), text(src, size), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// bigFiles writes n files of size bytes that compress to about half.
func bigFiles(dir string, n int, size int64) error {
	for i := range n {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("part%02d.bin", i)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		src := newRand(fmt.Sprintf("big file %d", i))
		w := bufio.NewWriterSize(f, 1<<20)
		noise := make([]byte, 24<<10)
		for left := size; left > 0; left -= 64 << 10 {
			src.Read(noise)
			w.Write(noise)
			w.Write(text(src, 40<<10))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// text returns size bytes that compress as prose does.
func text(src *rand.ChaCha8, size int) []byte {
	const letters = "etaoinshrdlucmfwypvbgkjqxz"
	var b bytes.Buffer
	b.Grow(size + 16)
	for b.Len() < size {
		x := src.Uint64()
		for n := 2 + x%7; n > 0; n-- {
			x >>= 5
			// The product of two draws prefers the letters in front.
			b.WriteByte(letters[(x&15)*(x>>4&15)/9%26])
		}
		b.WriteByte(' ')
	}
	return b.Bytes()[:size]
}
