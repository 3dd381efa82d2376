package step

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/slipway-build/slipway/engine"
)

// UsageOptions say how to show what the state directory holds.
type UsageOptions struct {
	Verbose bool // every entry instead of sums
	JSON    bool // every entry, as a JSON object a line
}

// ShowUsage writes what the state directory root holds to w.
func ShowUsage(ctx context.Context, w io.Writer, root string, opts UsageOptions) error {
	entries, err := engine.DiskUsage(ctx, root)
	if err != nil {
		return explained(err, root)
	}
	return writeUsage(w, entries, opts)
}

// PruneOptions say what to remove; the zero value everything that is unused.
type PruneOptions = engine.PruneOptions

// Prune removes from the state directory root what no build needs, and writes
// what it removed to w.
func Prune(ctx context.Context, w io.Writer, root string, opts PruneOptions, show UsageOptions) error {
	removed, err := engine.Prune(ctx, root, opts)
	if werr := writeUsage(w, removed, show); err == nil {
		err = werr
	}
	return explained(err, root)
}

func writeUsage(w io.Writer, entries []engine.Usage, opts UsageOptions) error {
	if opts.JSON {
		return writeUsageJSON(w, entries)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var total int64
	for _, u := range entries {
		total += u.Bytes
	}
	if opts.Verbose {
		fmt.Fprintln(tw, "KIND\tSIZE\tLAST USED\tNAME")
		for _, u := range entries {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", u.Kind, size(u.Bytes), lastUsed(u.LastUsed), clean(u.Name))
		}
	} else {
		fmt.Fprintln(tw, "KIND\tENTRIES\tSIZE")
		for _, k := range sums(entries) {
			fmt.Fprintf(tw, "%s\t%d\t%s\n", k.kind, k.n, size(k.bytes))
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "Total: %s\n", size(total))
	return err
}

type sum struct {
	kind  string
	n     int
	bytes int64
}

// sums adds up entries by kind, the largest first.
func sums(entries []engine.Usage) []sum {
	kinds := make(map[string]sum)
	for _, u := range entries {
		k := kinds[u.Kind]
		kinds[u.Kind] = sum{u.Kind, k.n + 1, k.bytes + u.Bytes}
	}
	return slices.SortedFunc(maps.Values(kinds), func(a, b sum) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.kind, b.kind))
	})
}

func writeUsageJSON(w io.Writer, entries []engine.Usage) error {
	enc := json.NewEncoder(w)
	for _, u := range entries {
		entry := struct {
			Kind     string     `json:"kind"`
			Name     string     `json:"name"`
			Bytes    int64      `json:"bytes"`
			LastUsed *time.Time `json:"lastUsed,omitempty"`
		}{u.Kind, u.Name, u.Bytes, &u.LastUsed}
		if u.LastUsed.IsZero() {
			entry.LastUsed = nil
		}
		if err := enc.Encode(entry); err != nil {
			return err
		}
	}
	return nil
}

func lastUsed(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}
