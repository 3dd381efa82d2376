package step

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/ci/github"
	"github.com/slipway-build/slipway/ci/plain"
	"github.com/slipway-build/slipway/engine/progress"
)

// zero is when the events of tests begin.
var zero = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// parse makes events of lines: TIME STEP KIND TEXT, time in seconds. A step of
// - is none; TEXT is the name of a step that starts or was cached, else what
// the kind has to say.
func parse(t *testing.T, script string) []progress.Event {
	t.Helper()
	kinds := map[string]progress.Kind{
		"start": progress.Started, "out": progress.Output, "transfer": progress.Transfer, "warn": progress.Warning,
		"cached": progress.Cached, "done": progress.Finished, "fail": progress.Failed, "tick": 0,
	}
	names := map[string]string{}
	began := map[string]time.Time{}
	var events []progress.Event
	for line := range strings.Lines(strings.TrimLeft(script, "\n")) {
		var at float64
		var step, word string
		if n, _ := fmt.Sscan(line, &at, &step, &word); n != 3 {
			t.Fatalf("bad line %q", line)
		}
		_, rest, _ := strings.Cut(line, word)
		rest = strings.TrimSuffix(strings.TrimPrefix(rest, " "), "\n")
		ev := progress.Event{Time: zero.Add(time.Duration(at * float64(time.Second))), Step: strings.Trim(step, "-"), Kind: kinds[word]}
		switch ev.Kind {
		case progress.Started, progress.Cached:
			names[step], began[step] = rest, ev.Time
		case progress.Transfer:
			if _, err := fmt.Sscan(rest, &ev.Done, &ev.Total); err != nil {
				t.Fatal(err)
			}
		case progress.Failed:
			ev.Err = errors.New(rest)
			ev.Took = ev.Time.Sub(began[step])
		case progress.Finished:
			ev.Took = ev.Time.Sub(began[step])
		case progress.Output, progress.Warning:
			ev.Line = rest
		}
		ev.Name = names[step]
		events = append(events, ev)
	}
	return events
}

// play shows events one after another, as a report does.
func play(v view, h *history, events []progress.Event) {
	for _, ev := range events {
		if ev.Kind == 0 {
			v.tick(ev.Time)
			continue
		}
		v.show(ev, h.add(ev))
	}
	v.close()
}

func TestPlainView(t *testing.T) {
	tests := []struct{ name, events, want string }{
		{
			"one after another", `
0 1 cached [1/4] FROM docker.io/library/debian:12
0.1 2 start [2/4] RUN go build
0.445 2 out compiling
1.3 2 out linking
12.345 2 out still linking
12.4 2 done
12.4 3 start [3/4] COPY . .
12.5 3 done
12.5 4 start export to image
73.1 4 done`, `
#1 CACHED [1/4] FROM docker.io/library/debian:12

#2 [2/4] RUN go build
#2 0.345 compiling
#2 1.200 linking
#2 12.24 still linking
#2 DONE 12.3s

#3 [3/4] COPY . .
#3 DONE 0.1s

#4 export to image
#4 DONE 1m00s
`,
		},
		{
			"two at once: lines stay together for a while", `
0 1 start [a] RUN one
0 2 start [b] RUN two
0.1 1 out 1
0.2 2 out 1
0.3 1 out 2
0.4 2 out 2
0.5 1 out 3
0.6 1 tick
1.0 2 out 3
1.0 1 tick
1.1 1 out 4
1.2 2 out 4
1.3 2 done
1.4 1 done`, `
#1 [a] RUN one
#1 0.100 1
#1 0.300 2
#1 0.500 3

#2 [b] RUN two
#2 0.200 1
#2 0.400 2
#2 1.000 3
#2 1.200 4
#2 DONE 1.3s

#1 [a] RUN one
#1 1.100 4
#1 DONE 1.4s
`,
		},
		{
			"short steps beside a chatty one are a line each", `
0 1 start [a] RUN chatty
0 2 start [b] COPY one
0.1 1 out 1
0.1 2 done
0.2 3 cached [b] COPY two
0.3 1 out 2
3.1 1 out 3
3.1 1 tick
3.2 1 out 4
3.3 1 done`, `
#1 [a] RUN chatty
#1 0.100 1
#1 0.300 2
#1 3.100 3
#2 DONE 0.1s [b] COPY one
#3 CACHED [b] COPY two

#1 [a] RUN chatty
#1 3.200 4
#1 DONE 3.3s
`,
		},
		{
			"failure, cancelled steps, warnings", `
0 1 start [a] RUN one
0 - warn retrying r.example
0 2 start [b] RUN two
0.1 1 out 1
0.1 2 out boom
0.2 2 warn odd
0.2 2 fail exit code: 2
0.3 1 fail exit code: 2`, `
#1 [a] RUN one
WARN: retrying r.example

#2 [b] RUN two
#2 0.100 boom
#2 WARN: odd
#2 ERROR: exit code: 2

#1 [a] RUN one
#1 0.100 1
#1 ERROR: exit code: 2
`,
		},
		{
			"a silent step that fails beside another", `
0 1 start [a] RUN one
0 2 start [b] RUN two
0.2 2 fail exit code: 2`, `
#1 [a] RUN one

#2 [b] RUN two
#2 ERROR: exit code: 2
`,
		},
		{
			"transfers now and then", `
0 1 start fetch layer
1 1 transfer 1000000 40000000
6 1 transfer 20000000 40000000
7 1 transfer 30000000 40000000
12 1 transfer 39999999 40000000
12.5 1 done`, `
#1 fetch layer
#1 20.0MB / 40.0MB
#1 40.0MB / 40.0MB
#1 DONE 12.5s, 40.0MB
`,
		},
		{
			"what is dangerous or long", "\n" +
				"0 1 start [a] RUN \x1b[31mred\x1b[0m\n" +
				"0.1 1 out \x1b[2J10%\r20%\x1b[K\n" +
				"0.2 1 out " + strings.Repeat("x", 4001) + "\n" +
				"0.3 1 out \n", `
#1 [a] RUN red
#1 0.100 20%
#1 0.200 ` + strings.Repeat("x", 4000) + `
#1 0.200 … x
#1 0.300 
`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			v, h := newView("plain", &out, plain.Dialect{}.Console(&out), nil, false)
			play(v, h, parse(t, tt.events))
			if diff := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), out.String()); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlainView_FoldsOnGitHub(t *testing.T) {
	var out strings.Builder
	console := github.Dialect{Lookup: func(string) (string, bool) { return "", false }}.Console(&out)
	v, h := newView("auto", &out, console, nil, false)
	play(v, h, parse(t, `
0 1 cached [1/3] FROM x
0 2 start [2/3] RUN echo 100%
0.1 2 out ::error::forged
0.2 2 done
0.2 3 start [3/3] COPY . .
0.3 3 done`))
	const want = `#1 CACHED [1/3] FROM x
::group::#2 [2/3] RUN echo 100%25
#2 0.100 ::error::forged
::endgroup::
#2 DONE 0.2s
::group::#3 [3/3] COPY . .
::endgroup::
#3 DONE 0.1s
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// Nothing of what steps print gets lost, in whatever order it comes.
func TestPlainView_LosesNothing(t *testing.T) {
	var out strings.Builder
	v, h := newView("plain", &out, plain.Dialect{}.Console(&out), nil, false)
	now, seed, total := zero, uint32(1), 0
	random := func(n int) int { seed = seed*1664525 + 1013904223; return int(seed>>16) % n }
	for i := range 5000 {
		now = now.Add(time.Duration(random(200)) * time.Millisecond)
		step := fmt.Sprint(random(7))
		kind := []progress.Kind{progress.Started, progress.Output, progress.Output, progress.Output, progress.Finished, 0}[random(6)]
		if kind == 0 {
			v.tick(now)
			continue
		}
		ev := progress.Event{Time: now, Step: step, Name: "step", Kind: kind}
		if kind == progress.Output {
			ev.Line = fmt.Sprintf("line-%d.", i)
			total++
		}
		v.show(ev, h.add(ev))
	}
	v.close()
	if got := strings.Count(out.String(), "line-"); got != total {
		t.Errorf("%d lines were shown, want %d", got, total)
	}
}

func TestJSONView_IsBuildKitsSolveStatus(t *testing.T) {
	var out bytes.Buffer
	v, h := newView("rawjson", &out, nil, nil, false)
	play(v, h, parse(t, `
0 1 start [1/2] RUN <x>
0.5 1 out hi
0.6 1 transfer 5 10
1 1 done
1 2 cached [2/2] COPY a b
1 - warn careful`))
	var got []map[string]any
	for dec := json.NewDecoder(&out); dec.More(); {
		var m map[string]any
		if err := dec.Decode(&m); err != nil {
			t.Fatal(err)
		}
		got = append(got, m)
	}
	const one, two = "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b", "sha256:d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35"
	const began, end = "2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z"
	list := func(m map[string]any) []any { return []any{m} }
	want := []map[string]any{
		{"vertexes": list(map[string]any{"digest": one, "name": "[1/2] RUN <x>", "started": began})},
		{"logs": list(map[string]any{"vertex": one, "stream": 1.0, "data": "aGkK", "timestamp": "2026-01-02T03:04:05.5Z"})},
		{"statuses": list(map[string]any{"id": "1", "vertex": one, "name": "[1/2] RUN <x>", "total": 10.0, "current": 5.0, "timestamp": "2026-01-02T03:04:05.6Z", "started": began})},
		{"vertexes": list(map[string]any{"digest": one, "name": "[1/2] RUN <x>", "started": began, "completed": end})},
		{"vertexes": list(map[string]any{"digest": two, "name": "[2/2] COPY a b", "started": end, "completed": end, "cached": true})},
		{"warnings": list(map[string]any{"level": 1.0, "short": "Y2FyZWZ1bA=="})},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestHistory_KeepsTheFailedStepsLastLines(t *testing.T) {
	h := newHistory(3)
	for _, ev := range parse(t, `
0 1 start [1/2] RUN a
0 1 out kept by nobody
1 1 done
1 2 cached [2/2] RUN c
1 3 start [b] RUN b
1 4 start fetch x`) {
		h.add(ev)
	}
	for i := range 100 {
		h.add(progress.Event{Time: zero.Add(2 * time.Second), Step: "3", Kind: progress.Output, Line: fmt.Sprint(i)})
	}
	cause := errors.New("exit code: 1")
	h.add(progress.Event{Step: "3", Kind: progress.Failed, Err: cause})
	h.add(progress.Event{Step: "4", Kind: progress.Failed, Err: fmt.Errorf("fetch: %w", cause)})
	lines, dropped := h.tail(h.failed)
	if diff := cmp.Diff([]string{"1.000 97", "1.000 98", "1.000 99"}, lines); diff != "" || dropped != 97 {
		t.Errorf("%d lines dropped; tail (-want +got):\n%s", dropped, diff)
	}
	if !h.canceled(h.steps["4"]) || h.canceled(h.steps["3"]) {
		t.Error("a step that failed because of another one is not told apart")
	}
	if steps, cached := h.count(); steps != 3 || cached != 1 {
		t.Errorf("count = %d, %d; want 3, 1", steps, cached)
	}
	if n := len(h.steps["1"].lines); n != 0 {
		t.Errorf("%d lines of a step that succeeded are kept", n)
	}
}

// slowView takes an hour for each event.
type slowView struct {
	quietView
	shown int
}

func (v *slowView) show(progress.Event, *stepState) {
	time.Sleep(time.Hour)
	v.shown++
}

// A view that is slow does not slow the build, until very much waits for it.
func TestReport_DoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &slowView{}
		r := openReport(newHistory(1), v)
		start := time.Now()
		for range 1000 {
			r.sink(progress.Event{Step: "1", Kind: progress.Output})
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("events took %v", took)
		}
		big := strings.Repeat("x", maxQueueBytes)
		r.sink(progress.Event{Step: "1", Kind: progress.Output, Line: big})
		r.sink(progress.Event{Step: "1", Kind: progress.Output, Line: big})
		if took := time.Since(start); took == 0 {
			t.Error("there is no limit to what may wait")
		}
		r.close()
		r.close()
		r.sink(progress.Event{Step: "1", Kind: progress.Output}) // too late, and harmless
		if v.shown != 1002 {
			t.Errorf("%d events were shown, want 1002", v.shown)
		}
	})
}

// The report ticks while nothing happens, so that what is held back shows.
func TestReport_Ticks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		v, h := newView("plain", &out, plain.Dialect{}.Console(&out), nil, false)
		r := openReport(h, v)
		sink := progress.Sink(r.sink)
		sink.Emit(progress.Event{Step: "1", Name: "one", Kind: progress.Started})
		sink.Emit(progress.Event{Step: "2", Name: "two", Kind: progress.Started})
		sink.Emit(progress.Event{Step: "2", Name: "two", Kind: progress.Output, Line: "held back"})
		time.Sleep(time.Second)
		synctest.Wait()
		if !strings.Contains(out.String(), "#2 0.000 held back") {
			t.Errorf("log after a second:\n%s", out.String())
		}
		r.close()
	})
}

func TestSizeAndDuration(t *testing.T) {
	for _, tt := range []struct {
		n    int64
		want string
	}{{0, "0B"}, {999, "999B"}, {1000, "1.0kB"}, {999_949, "999.9kB"}, {999_950, "1.0MB"}, {1 << 62, "4611.7PB"}} {
		if got := size(tt.n); got != tt.want {
			t.Errorf("size(%d) = %s, want %s", tt.n, got, tt.want)
		}
	}
	for _, tt := range []struct {
		d    time.Duration
		want string
	}{{1, "0.0s"}, {1234 * time.Millisecond, "1.2s"}, {time.Minute, "1m00s"}, {3725 * time.Second, "62m05s"}} {
		if got := duration(tt.d, zero, zero); got != tt.want {
			t.Errorf("duration(%v) = %s, want %s", tt.d, got, tt.want)
		}
	}
}
