package registry

import (
	"fmt"
	"io/fs"
	"net/http"
	"time"
)

// AuthError means that a registry wants credentials, or refused those that it
// was given. Many registries answer so too if there is no such repository.
type AuthError struct {
	Host       string // the registry, as in the name of the image
	Repository string
	Status     int  // 401 or 403
	Anonymous  bool // there were no credentials for the host
	Message    string
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

// Error is an answer of a registry that is not what was asked for.
type Error struct {
	Host    string
	Request string // such as "PUT /v2/app/manifests/1"
	Status  int
	Code    string // of the distribution specification, such as MANIFEST_INVALID; may be empty
	Message string // what the registry said, shortened; may be empty

	RetryAfter time.Duration // what it asked for
}

// Error says what was asked and what was answered.
func (e *Error) Error() string {
	s := fmt.Sprintf("registry %s: %s: %d %s", e.Host, e.Request, e.Status, http.StatusText(e.Status))
	if e.Code != "" {
		s += ": " + e.Code
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

// NotFoundError means that there is no such image, or none for the platform.
// It is an fs.ErrNotExist.
type NotFoundError struct {
	Ref    string // as it was written
	Detail string // "no such tag", "it has linux/amd64, linux/arm64"
}

// Error names the image.
func (e *NotFoundError) Error() string { return fmt.Sprintf("image %s: %s", e.Ref, e.Detail) }

// Is makes it an fs.ErrNotExist.
func (*NotFoundError) Is(target error) bool { return target == fs.ErrNotExist }
