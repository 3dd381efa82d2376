package layer_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/slipway-build/slipway/engine/layer"
)

// debianTar is like the layer of a small Debian: 8700 entries in 900
// directories, 170 MB, but smaller by a factor.
func debianTar(tb testing.TB, factor int) []byte {
	tb.Helper()
	text := someText(1 << 20)
	var ents []ent
	for d := range 900 / factor {
		name := fmt.Sprintf("usr%02d", d/30)
		if d%30 == 0 {
			ents = append(ents, dir(name))
		}
		name += fmt.Sprintf("/dir%d", d%30)
		ents = append(ents, dir(name))
		for f := range 9 {
			size := (d*7919+f*104729)%40_000 + 1
			if f == 0 && d%10 == 0 {
				size = 400_000
			}
			ents = append(ents, file(fmt.Sprintf("%s/file%d", name, f), text[d*100:d*100+size]))
		}
	}
	return tarOf(tb, ents...)
}

// debian returns the directory of such a layer, and the size of its tar.
func debian(tb testing.TB) (string, int64) {
	b := debianTar(tb, 1)
	return unpack(tb, b), int64(len(b))
}

func BenchmarkUnpack(b *testing.B) {
	plain := debianTar(b, 1)
	for name, data := range map[string][]byte{"plain": plain, "gzip": gz(b, plain)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			b.ReportAllocs()
			for b.Loop() {
				root := openRoot(b, b.TempDir())
				if _, err := layer.Unpack(b.Context(), bytes.NewReader(data), root, layer.UnpackOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
