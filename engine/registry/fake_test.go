package registry_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// roundTripper answers without a network, so that time can be faked.
type roundTripper func(*http.Request) *http.Response

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Context().Err() != nil {
		return nil, req.Context().Err()
	}
	resp := f(req)
	resp.Request = req
	return resp, nil
}

func newResponse() *httptest.ResponseRecorder { return httptest.NewRecorder() }

func withTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), d)
}
