package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// AuthError means that a registry wants credentials, or refused those that it
// was given. Many registries answer so too if there is no such repository.
type AuthError struct {
	Host       string // the registry, as in the name of the image
	Repository string
	Status     int    // 401 or 403
	Anonymous  bool   // there were no credentials for the host
	Message    string // what the registry said, shortened; may be empty
}

// Error says what was refused.
func (e *AuthError) Error() string {
	what := "refused the credentials"
	if e.Anonymous {
		what = "wants credentials"
	}
	s := fmt.Sprintf("registry %s %s for %s (status %d)", e.Host, what, e.Repository, e.Status)
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Error is an answer of a registry that is not what was asked for. A 404 is an
// fs.ErrNotExist.
type Error struct {
	Host    string
	Request string // such as "PUT /v2/app/manifests/1"
	Status  int
	Code    string // of the distribution specification, such as MANIFEST_INVALID; may be empty
	Message string // what the registry said, shortened; may be empty

	RetryAfter time.Duration // what it asked for; 0 if it did not
}

// Error says what was asked and what was answered.
func (e *Error) Error() string {
	s := fmt.Sprintf("registry %s: %s: status %d", e.Host, e.Request, e.Status)
	if text := http.StatusText(e.Status); text != "" {
		s += " " + text
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Is makes a 404 an fs.ErrNotExist.
func (e *Error) Is(target error) bool {
	return target == fs.ErrNotExist && e.Status == http.StatusNotFound
}

// NotFoundError means that there is no such image, or none for the platform
// asked for. It is an fs.ErrNotExist.
type NotFoundError struct {
	Ref    string // as it was written
	Detail string
}

// Error names the image.
func (e *NotFoundError) Error() string { return fmt.Sprintf("image %s: %s", e.Ref, e.Detail) }

// Is makes it an fs.ErrNotExist.
func (*NotFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// check returns nil if the status of resp is one of want, else an error, having
// closed the body.
func (e *endpoint) check(resp *http.Response, repo string, want ...int) error {
	if slices.Contains(want, resp.StatusCode) {
		return nil
	}
	code, message := readError(resp)
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		return &AuthError{
			Host: e.name, Repository: repo, Status: resp.StatusCode, Message: message,
			Anonymous: e.anonymous(repo),
		}
	}
	return &Error{
		Host: e.name, Status: resp.StatusCode, Code: code, Message: message,
		Request:    resp.Request.Method + " " + resp.Request.URL.Path, // not the query: it may be signed
		RetryAfter: retryAfter(resp),
	}
}

// readError reads what the registry has to say, in the specification's form or
// not, and closes the body.
func readError(resp *http.Response) (code, message string) {
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil && len(b) == 0 {
		return "", ""
	}
	var body struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details string `json:"details"` // of token servers
	}
	if json.Unmarshal(b, &body) == nil {
		for _, e := range body.Errors {
			if code == "" {
				code = e.Code
			}
			message += "; " + e.Code + ": " + e.Message
		}
		if message == "" {
			message = body.Details
		}
		return printable(code, 64), printable(strings.TrimPrefix(message, "; "), 300)
	}
	if strings.Contains(resp.Header.Get("Content-Type"), "html") {
		return "", "" // a proxy's error page
	}
	return "", printable(string(b), 300)
}

// printable makes one line of at most limit bytes of what a stranger sent.
func printable(s string, limit int) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)), " ")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}

// retryAfter reads the header of that name; 0 means that there is none.
func retryAfter(resp *http.Response) time.Duration {
	v := resp.Header.Get("Retry-After")
	if v == "" {
		return 0
	}
	if n, err := strconv.Atoi(v); err == nil {
		return time.Duration(min(max(n, 0), 86400)) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(time.Until(t), 0)
	}
	return 0
}

// InsecureError means that a registry which must be spoken to by https only
// speaks plain http.
type InsecureError struct{ Host string }

// Error names the registry.
func (e *InsecureError) Error() string {
	return fmt.Sprintf("registry %s speaks plain http, not https", e.Host)
}

// errContent marks an answer whose content is not what it should be.
var errContent = errors.New("unexpected content")
