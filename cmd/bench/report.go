package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// result is the JSON document.
type result struct {
	Machine machine      `json:"machine"`
	Rounds  int          `json:"rounds"`
	Cases   []caseResult `json:"cases"`
}

type machine struct {
	CPUs   int    `json:"cpus"`
	Arch   string `json:"arch"`
	Kernel string `json:"kernel"`
}

type caseResult struct {
	Name     string          `json:"name"`
	About    string          `json:"about"`
	Builders []builderResult `json:"builders"` // the first is slipway
}

type builderResult struct {
	Name    string   `json:"name"`
	Note    string   `json:"note,omitempty"`
	Error   string   `json:"error,omitempty"`
	Median  sample   `json:"median"`
	Ratio   float64  `json:"ratio"` // of slipway's median time
	Samples []sample `json:"samples"`
}

func newResult(rounds int) result {
	var u unix.Utsname
	_ = unix.Uname(&u) // an empty name is no reason to stop
	kernel, _, _ := bytes.Cut(u.Release[:], []byte{0})
	return result{
		Machine: machine{CPUs: runtime.NumCPU(), Arch: runtime.GOARCH, Kernel: string(kernel)},
		Rounds:  rounds,
	}
}

func newCaseResult(c benchCase, builders []builder) caseResult {
	r := caseResult{Name: c.name, About: c.about}
	for _, b := range builders {
		r.Builders = append(r.Builders, builderResult{Name: b.name, Note: b.note})
	}
	return r
}

// sum fills in medians and ratios.
func (r *caseResult) sum() {
	for i := range r.Builders {
		b := &r.Builders[i]
		b.Median = sample{
			Seconds: median(b.Samples, func(s sample) float64 { return s.Seconds }),
			CPU:     median(b.Samples, func(s sample) float64 { return s.CPU }),
			Peak:    int64(median(b.Samples, func(s sample) float64 { return float64(s.Peak) })),
		}
		if own := r.Builders[0].Median.Seconds; own > 0 {
			b.Ratio = b.Median.Seconds / own
		}
	}
}

func median(samples []sample, of func(sample) float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	var values []float64
	for _, s := range samples {
		values = append(values, of(s))
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

func (r *caseResult) print(w io.Writer) {
	r.sum()
	fmt.Fprintf(w, "\n%s: %s\n", r.Name, r.About)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "  builder\tmedian\tbest to worst\tratio\tCPU\tpeak\t")
	for _, b := range r.Builders {
		if b.Error != "" {
			fmt.Fprintf(tw, "  %s\tfailed: %s\n", b.Name, b.Error)
			continue
		}
		best := slices.MinFunc(b.Samples, bySeconds).Seconds
		worst := slices.MaxFunc(b.Samples, bySeconds).Seconds
		fmt.Fprintf(tw, "  %s\t%.3f s\t%.3f to %.3f\t%.2f\t%.2f s\t%.0f MiB\t%s\n", b.Name,
			b.Median.Seconds, best, worst, b.Ratio, b.Median.CPU, float64(b.Median.Peak)/(1<<20), b.Note)
	}
	_ = tw.Flush() // to standard output
}

func bySeconds(a, b sample) int { return cmp.Compare(a.Seconds, b.Seconds) }

// write replaces file by the result as JSON.
func (r result) write(file string) error {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return err
	}
	tmp := fmt.Sprintf("%s.%d", file, os.Getpid())
	if err := os.WriteFile(tmp, []byte(b.String()), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}
