package dockerfile

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/graph"
)

// parseOwner reads a --chown or a USER: user[:group], each a name or a number.
// The zero Owner is that nothing was said, which for COPY --from is not 0:0.
func parseOwner(s string) (graph.Owner, error) {
	if s == "" {
		return graph.Owner{}, nil
	}
	user, group, _ := strings.Cut(s, ":")
	if user == "" {
		user = "0"
	}
	user, err := account(user)
	if err != nil {
		return graph.Owner{}, err
	}
	if group != "" {
		if group, err = account(group); err != nil {
			return graph.Owner{}, err
		}
	}
	return graph.Owner{User: user, Group: group}, nil
}

// account puts a name or number of a user or group into its canonical form:
// root is 0, whatever passwd says.
func account(s string) (string, error) {
	if s == "root" {
		return "0", nil
	}
	switch n, err := strconv.ParseInt(s, 10, 32); {
	case err == nil && n < 0:
		return "", fmt.Errorf("invalid id %s", s)
	case err == nil:
		return strconv.FormatInt(n, 10), nil
	}
	return s, nil // a name
}

// symbolic is a symbolic mode of chmod. Like every pattern of ours it is compiled
// when it is first used: what a package does at its start, every RUN does again.
var symbolic = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[ugoa]*(?:[-+=][rwxXstugo]*)+(?:,[ugoa]*(?:[-+=][rwxXstugo]*)+)*$`)
})

// parseMode checks a --chmod and puts it into its canonical form.
func parseMode(s string) (string, error) {
	if s == "" || symbolic().MatchString(s) {
		return s, nil
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o7777 {
		err := fmt.Errorf("invalid --chmod=%s", s)
		return "", diag.Hint(err, "Give octal digits up to 7777, or symbols such as u=rwX,go=rX.")
	}
	return strconv.FormatUint(n, 8), nil
}
