package dockerfile

import "fmt"

// suggest returns the option that word may be a slip of the pen for: the first
// of those at most two edits away that is closest. It is empty if there is none,
// or if word is an option itself.
func suggest(word string, options []string) string {
	best, limit := "", 3
	for _, option := range options {
		if option == word {
			return ""
		}
		if d := distance(word, option); d < limit {
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

// distance is the number of letters to insert, remove or replace.
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	if d := len(s) - len(t); d > 2 || d < -2 {
		return 3 // far: nobody asks how far
	}
	row := make([]int, len(t)+1)
	for j := range row {
		row[j] = j
	}
	for i := range s {
		diagonal := row[0]
		row[0] = i + 1
		for j := range t {
			cost := diagonal
			if s[i] != t[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(t)]
}
