package registry_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/registry"
)

func located(host string, data []byte) content.Descriptor {
	return content.Descriptor{
		Digest: digest.FromBytes(data), Size: int64(len(data)),
		Annotations: map[string]string{content.SourceAnnotation: host + "/app"},
	}
}

// interrupted answers with at most part bytes at a time, then hangs up. If it
// knows no ranges, it begins at the start each time, and gets further.
func interrupted(data []byte, part int, ranges bool) http.Handler {
	asked := 0
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked++
		from := 0
		if r, ok := strings.CutPrefix(req.Header.Get("Range"), "bytes="); ok && ranges {
			from, _ = strconv.Atoi(strings.TrimSuffix(r, "-"))
			w.Header().Set("Content-Range", "bytes "+strconv.Itoa(from)+"-"+strconv.Itoa(len(data)-1)+"/"+strconv.Itoa(len(data)))
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)-from))
		if from > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		n := part
		if !ranges {
			n *= asked
		}
		_, _ = w.Write(data[from:min(from+n, len(data))])
		_ = http.NewResponseController(w).Flush()
		if from+n < len(data) {
			panic(http.ErrAbortHandler)
		}
	})
}

func TestFetch_GoesOnWhereItStopped(t *testing.T) {
	data := make([]byte, 300_000)
	for i := range data {
		data[i] = byte(rand.N(256))
	}
	for _, ranges := range []bool{true, false} {
		host, rec := serve(t, interrupted(data, 70_000, ranges))
		c := newClient(t, registry.Options{})
		if got := read(t, c, located(host, data)); !bytes.Equal([]byte(got), data) {
			t.Errorf("ranges=%t: read %d bytes that are not those that were sent", ranges, len(got))
		}
		if n := len(rec.take()); n < 5 {
			t.Errorf("ranges=%t: %d requests, want at least 5", ranges, n)
		}
	}
}

func TestFetch_GivesUp(t *testing.T) {
	data := []byte("some data")
	tests := []struct {
		name, want string
		handler    http.HandlerFunc
	}{
		{"wrong range", "asked for the rest from byte 4", func(w http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Range") != "" {
				w.Header().Set("Content-Range", "bytes 0-8/9")
				w.WriteHeader(http.StatusPartialContent)
				return
			}
			w.Header().Set("Content-Length", "9")
			_, _ = w.Write(data[:4])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}},
		{"too short", "3 bytes instead of 9", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data[:3]) }},
		{"gone", "404", http.NotFound},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			host, _ := serve(t, test.handler)
			r, err := newClient(t, registry.Options{Transport: quick{}}).Fetch(t.Context(), located(host, data))
			if err == nil {
				_, err = io.ReadAll(r)
				_ = r.Close()
			}
			if err == nil || !contains(err.Error(), test.want, host) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
			if test.name == "gone" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v is no fs.ErrNotExist", err)
			}
		})
	}
	if _, err := newClient(t, registry.Options{}).Fetch(t.Context(), content.Descriptor{Digest: digest.FromString("x")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a blob that is nowhere: %v, want fs.ErrNotExist", err)
	}
}

func TestFetch_GivesUpWhenNothingComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		c := newClient(t, registry.Options{Transport: blocking(func(*http.Request) (*http.Response, error) {
			tries++
			resp := newResponse().Result()
			resp.Body, resp.ContentLength = io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF)), 9
			return resp, nil
		})})
		r, err := c.Fetch(t.Context(), located("r.example", []byte("some data")))
		if err == nil {
			_, err = io.ReadAll(r)
			_ = r.Close()
		}
		if err == nil || !contains(err.Error(), "stopped after 0 bytes", "r.example") || tries != 5 {
			t.Errorf("got %v after %d tries", err, tries)
		}
	})
}

// A body that stalls is asked for again.
func TestFetch_NoticesSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := []byte("0123456789")
		tries := 0
		c := newClient(t, registry.Options{Transport: blocking(func(req *http.Request) (*http.Response, error) {
			w := newResponse()
			tries++
			if tries == 1 {
				resp := w.Result()
				resp.Body, resp.ContentLength = &stalling{req: req, data: data[:3]}, 10
				return resp, nil
			}
			w.Header().Set("Content-Range", "bytes 3-9/10")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(data[3:])
			return w.Result(), nil
		})})
		if got := read(t, c, located("r.example", data)); got != string(data) || tries != 2 {
			t.Errorf("read %q in %d tries", got, tries)
		}
	})
}

// stalling is a body that ends only when the request does.
type stalling struct {
	req  *http.Request
	data []byte
}

func (s *stalling) Read(p []byte) (int, error) {
	if len(s.data) > 0 {
		n := copy(p, s.data)
		s.data = s.data[n:]
		return n, nil
	}
	<-s.req.Context().Done()
	return 0, s.req.Context().Err()
}

func (s *stalling) Close() error { return nil }

// quick is a transport without idle connections, for servers that hang up.
type quick struct{}

func (quick) RoundTrip(req *http.Request) (*http.Response, error) {
	return (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
}
