package step

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"syscall"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/registry"
	"github.com/slipway-build/slipway/engine/sandbox"
)

// explain says where in the Dockerfile an error comes from and what can be done
// about it. The engine knows the place, and the cure of what is wrong with the
// Dockerfile; what is wrong with the surroundings is cured here.
func explain(err error, stateDir string, root bool) (at diag.Origin, hint string) {
	at, hint = diag.Explain(err)
	if hint == "" {
		hint = remedy(err, stateDir, root)
	}
	return at, hint
}

const rootHint = "Run slipway as root: in this version it needs CAP_SYS_ADMIN, to mount overlay file systems and to start containers."

func remedy(err error, stateDir string, root bool) string {
	if auth, ok := errors.AsType[*registry.AuthError](err); ok {
		return loginHint(auth)
	}
	if _, ok := errors.AsType[*registry.NotFoundError](err); ok {
		return "Check the image's name, tag and platform. A private repository may need docker login."
	}
	if e, ok := errors.AsType[*registry.Error](err); ok {
		return registryHint(e)
	}
	if e, ok := errors.AsType[*sandbox.ExitError](err); ok {
		if e.OOMKilled {
			return "Give the machine more memory, or run fewer steps at once with --max-parallelism."
		}
		return ""
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "The registry does not speak https. If that is intended, name it with --insecure-registry."
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "Add the registry's certificate authority to the system's, or set SSL_CERT_FILE; --insecure-registry accepts any certificate."
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Sprintf("Free space on the disk of %s with slipway prune, or choose another directory with --root.", stateDir)
	}
	if inStateDir(err, stateDir) {
		return "Choose a directory that can be written to with --root or SLIPWAY_ROOT."
	}
	if errors.Is(err, fs.ErrPermission) && !root {
		return rootHint
	}
	return ""
}

func loginHint(e *registry.AuthError) string {
	if e.Anonymous {
		return fmt.Sprintf("Log in with docker login %s, or set DOCKER_CONFIG to the directory of a config.json that has credentials for %s. "+
			"If the image is public, check its name.", e.Host, e.Host)
	}
	return fmt.Sprintf("The credentials for %s do not suffice for %s. Check that they are valid and may do this; docker login %s replaces them.",
		e.Host, e.Repository, e.Host)
}

func registryHint(e *registry.Error) string {
	switch {
	case e.Status == http.StatusTooManyRequests:
		return fmt.Sprintf("%s limits how much may be pulled: log in with docker login %s, or name a mirror with --registry-mirror.", e.Host, e.Host)
	case e.Status == http.StatusNotFound:
		return "Check the image's name. A private repository may need docker login."
	case e.Status >= http.StatusInternalServerError:
		return fmt.Sprintf("%s has a problem of its own: try again later.", e.Host)
	}
	return ""
}

// inStateDir reports whether err is about the state directory not being a
// directory that can be written to.
func inStateDir(err error, stateDir string) bool {
	p, ok := errors.AsType[*fs.PathError](err)
	if !ok || stateDir == "" || !strings.HasPrefix(p.Path, stateDir) {
		return false
	}
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOTDIR)
}

// explained adds the remedy for what is wrong with the surroundings.
func explained(err error, stateDir string) error {
	if _, hint := explain(err, stateDir, true); hint != "" {
		return diag.Hint(err, "%s", hint)
	}
	return err
}
