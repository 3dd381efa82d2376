// Package diag adds to an error what the reader of a build log needs and the
// code that failed could not know: which lines of their Dockerfile are to
// blame, and what they can do about it.
//
// Most code never imports diag: it returns fmt.Errorf("verb object: %w", err).
// The one caller that knows the place adds it with [At], the one that knows
// the remedy adds it with [Hint], and whoever shows the error asks [Explain].
package diag

import (
	"errors"
	"fmt"
)

// Origin is a range of lines in a file that the user wrote. The zero Origin
// means nowhere in particular.
type Origin struct {
	File       string
	Line, Last int // 1-based, inclusive
}

// String returns file:line, which terminals and editors turn into a link.
func (o Origin) String() string { return fmt.Sprintf("%s:%d", o.File, o.Line) }

// At says that err was caused by what is written at o. At(nil, o) is nil.
func At(err error, o Origin) error {
	if err == nil || o == (Origin{}) {
		return err
	}
	return &note{error: err, at: o}
}

// Hint says how to cure err, as an instruction. Hint(nil, …) is nil.
func Hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &note{error: err, hint: fmt.Sprintf(format, args...)}
}

// Explain returns what [At] and [Hint] said about err. Where several errors of
// the chain say something, the innermost wins: it was closest to the failure.
func Explain(err error) (at Origin, hint string) {
	for n, ok := errors.AsType[*note](err); ok; n, ok = errors.AsType[*note](n.error) {
		if n.at != (Origin{}) {
			at = n.at
		}
		if n.hint != "" {
			hint = n.hint
		}
	}
	return at, hint
}

// A note leaves the message of the error that it annotates as it is.
type note struct {
	error
	at   Origin
	hint string
}

func (n *note) Unwrap() error { return n.error }
