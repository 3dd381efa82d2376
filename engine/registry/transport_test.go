package registry_test

import (
	"errors"
	"maps"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipway-build/slipway/engine/registry"
)

// flaky answers with the given statuses first.
func flaky(inner http.Handler, header http.Header, statuses ...int) roundTripper {
	return func(req *http.Request) *http.Response {
		w := newResponse()
		if len(statuses) > 0 {
			maps.Copy(w.Header(), header)
			w.WriteHeader(statuses[0])
			statuses = statuses[1:]
		} else {
			inner.ServeHTTP(w, req)
		}
		return w.Result()
	}
}

func TestResolve_TriesAgain(t *testing.T) {
	b := blobs{}
	m := b.image(amd64, "layer")
	docs := map[string]document{"manifests/1": {mediaType: m.MediaType, body: b[m.Digest]}}
	for d, data := range b {
		docs["manifests/"+d.String()] = document{body: data, mediaType: m.MediaType}
		docs["blobs/"+d.String()] = document{body: data}
	}
	tests := []struct {
		name              string
		header            http.Header
		statuses          []int
		shortest, longest time.Duration
		fails             bool
	}{
		{"server error", nil, []int{500, 502, 503}, time.Second, 3 * time.Second, false},
		{"too many requests", nil, []int{429, 429}, 2 * time.Second, 4 * time.Second, false},
		{"too many requests, come back later", http.Header{"Retry-After": {"17"}}, []int{429}, 17 * time.Second, 17 * time.Second, false},
		{"come back tomorrow", http.Header{"Retry-After": {"86400"}}, []int{429}, 0, 0, true},
		{"down", nil, []int{503, 503, 503, 503, 503, 503}, 5 * time.Second, 10 * time.Second, true},
		{"not ours to repeat", nil, []int{400}, 0, 0, false}, // HEAD: falls back to GET
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var log []string
				c := newClient(t, registry.Options{
					Transport: flaky(registryOf(docs), test.header, test.statuses...),
					Log:       func(s string) { log = append(log, s) },
				})
				_, err := c.Resolve(t.Context(), "r.example/app:1", amd64)
				if (err != nil) != test.fails {
					t.Errorf("got %v, want an error: %t", err, test.fails)
				}
				if answer, ok := errors.AsType[*registry.Error](err); test.fails && (!ok || answer.Status != test.statuses[0] || answer.Host != "r.example") {
					t.Errorf("got %v, want a *registry.Error with the status %d", err, test.statuses[0])
				}
				if took := time.Since(start); took < test.shortest || took > test.longest {
					t.Errorf("took %s, want %s to %s", took, test.shortest, test.longest)
				}
				if test.shortest > 0 && (len(log) == 0 || !contains(log[0], "r.example", "trying again")) {
					t.Errorf("log: %q", log)
				}
			})
		})
	}
}

func TestResolve_StopsWhenCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, registry.Options{Transport: roundTripper(func(*http.Request) *http.Response {
			w := newResponse()
			w.WriteHeader(http.StatusServiceUnavailable)
			return w.Result()
		})})
		ctx, cancel := withTimeout(t, time.Second)
		defer cancel()
		start := time.Now()
		_, err := c.Resolve(ctx, "r.example/app:1", amd64)
		if err == nil || time.Since(start) > time.Second {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
	})
}

// A server that neither answers nor hangs up must not stop a build for ever.
func TestResolve_GivesUpOnSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		c := newClient(t, registry.Options{Transport: blocking(func(req *http.Request) (*http.Response, error) {
			tries++
			<-req.Context().Done()
			return nil, req.Context().Err()
		})})
		_, err := c.Resolve(t.Context(), "r.example/app:1", amd64)
		if err == nil || !strings.Contains(err.Error(), "stalled") || tries < 3 {
			t.Errorf("got %v after %d tries", err, tries)
		}
	})
}

type blocking func(*http.Request) (*http.Response, error)

func (f blocking) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
