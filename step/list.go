package step

import (
	"errors"
	"strings"
)

var errQuote = errors.New("a quote is not closed")

// split makes the items of an input's text, as build-push-action does: lines
// are CSV records, so that an item that has a newline or, in a List, a comma
// is put in quotes, with inner quotes doubled. Blank items are dropped.
func split(k Kind, s string) ([]string, error) {
	switch k {
	case Text:
		return []string{s}, nil
	case Bool:
		return []string{strings.TrimSpace(s)}, nil
	case Raw:
		var items []string
		for line := range strings.Lines(s) {
			if line = strings.TrimSpace(line); line != "" {
				items = append(items, line)
			}
		}
		return items, nil
	case Lines, List:
	}
	var items []string
	for s != "" {
		record, rest, err := readRecord(s)
		if err != nil {
			return nil, err
		}
		s = rest
		switch {
		case k == Lines:
			record = []string{strings.Join(record, ",")}
		case len(record) == 1:
			record = fields(record[0])
		}
		for _, item := range record {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
	}
	return items, nil
}

// readRecord reads one CSV record. Quotes that are not at a field's beginning
// are ordinary characters, and so is a pair of quotes with something after it.
func readRecord(s string) (record []string, rest string, err error) {
	for {
		var field string
		var last bool
		if field, s, last, err = readField(s); err != nil {
			return nil, "", err
		}
		record = append(record, field)
		if last {
			return record, s, nil
		}
	}
}

// readField reads a field and its separator; last says that it ends the record.
func readField(s string) (field, rest string, last bool, err error) {
	var quoted string
	if strings.HasPrefix(s, `"`) {
		end := closingQuote(s)
		if end < 0 {
			return "", "", false, errQuote
		}
		after := strings.TrimPrefix(s[end+1:], "\r")
		if after == "" || after[0] == ',' || after[0] == '\n' {
			quoted = strings.ReplaceAll(s[1:end], `""`, `"`)
			s = after
		} else {
			quoted, s = s[:end+1], s[end+1:]
		}
	}
	i := strings.IndexAny(s, ",\n")
	if i < 0 {
		return quoted + strings.TrimSuffix(s, "\r"), "", true, nil
	}
	return quoted + strings.TrimSuffix(s[:i], "\r"), s[i+1:], s[i] == '\n', nil
}

// closingQuote returns the index of the quote that closes the one at 0, or -1.
func closingQuote(s string) int {
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			i++
			continue
		}
		return i
	}
	return -1
}
