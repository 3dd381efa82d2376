package dockerfile

import (
	"fmt"

	"github.com/slipway-build/slipway/engine/diag"
)

// suggest returns the option that word may be a slip of the pen for: the first
// of those at most two edits away that is closest. It is empty if there is none,
// or if word is an option itself.
func suggest(word string, options []string) string {
	best, limit := "", 3
	for _, option := range options {
		if option == word {
			return ""
		}
		if d := diag.Distance(word, option); d < limit {
			best, limit = option, d
		}
	}
	return best
}

// didYouMean adds a suggestion to the message of err, in the grammar's words.
func didYouMean(err error, word string, options []string) error {
	if s := suggest(word, options); s != "" {
		return fmt.Errorf("%w (did you mean %s?)", err, s)
	}
	return err
}
