package solve_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipway-build/slipway/engine/diag"
	"github.com/slipway-build/slipway/engine/graph"
	"github.com/slipway-build/slipway/engine/solve"
)

func TestSolve(t *testing.T) {
	src := context1("src v1")
	base := image("base")
	compile := exec("compile", base, files(src))
	ship := copyFrom("ship", base, compile)

	w := newWorld()
	if got, want := w.solve(t, ship), "base ship[compile[src v1]]"; got != want {
		t.Errorf("tree = %q, want %q", got, want)
	}
	w.wantRan(t, "compile", "ship")

	// A second build finds everything, and prepares nothing.
	w.solve(t, ship)
	w.wantRan(t)
	w.wantPrepared(t)
}

func TestSolve_ContentDecidesWhatIsReadByPath(t *testing.T) {
	w := newWorld()
	build := func(src string) *graph.Node {
		return exec("test", copyFrom("ship", image("base"), exec("compile", image("go"), files(context1(src)))))
	}
	w.output["compile src v2"] = "compile src v1" // a change that makes no difference
	w.solve(t, build("src v1"))
	w.wantRan(t, "compile", "ship", "test")
	w.solve(t, build("src v2"))
	w.wantRan(t, "compile")
}

func TestSolve_SharedNodesRunOnce(t *testing.T) {
	shared := exec("shared", image("base"))
	var roots []*graph.Node
	for i := range 50 {
		roots = append(roots, exec(fmt.Sprint("root", i), shared))
	}
	w := newWorld()
	w.solve(t, roots...)
	if n := len(slices.DeleteFunc(w.ran, func(s string) bool { return s != "shared" })); n != 1 {
		t.Errorf("the shared node ran %d times", n)
	}
}

func TestSolve_FirstFailureWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("exit code 2")
		bad := exec("bad", image("a"))
		bad.Origin = diag.Origin{File: "Dockerfile", Line: 4, Last: 4}
		slow := exec("slow", image("b"))
		w := newWorld()
		w.fail["bad"], w.sleep["slow"] = boom, time.Hour

		start := time.Now()
		_, err := solve.Solve(t.Context(), w.options(), exec("root", image("c"), files(slow), files(bad)))
		if !errors.Is(err, boom) {
			t.Errorf("err = %v, want %v", err, boom)
		}
		if at, _ := diag.Explain(err); at != bad.Origin {
			t.Errorf("origin = %v, want %v", at, bad.Origin)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("waited %v for a sibling of the node that failed", took)
		}
	})
}

func TestSolve_CallerCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.sleep["slow"] = time.Hour
		stop := errors.New("interrupted")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(stop) })
		if _, err := solve.Solve(ctx, w.options(), exec("slow", image("a"))); !errors.Is(err, stop) {
			t.Errorf("err = %v, want %v", err, stop)
		}
	})
}

// A stage that always gives something new must change what is built on it.
func TestInvariant01_NewOutputIsSeenDownstream(t *testing.T) {
	w := newWorld()
	build := func() *graph.Node {
		date := exec("date", image("base"))
		date.NoCache = true
		return exec("use", copyFrom("copy date", image("base"), date))
	}
	w.output["date"] = "monday"
	first := w.solve(t, build())
	w.output["date"] = "tuesday"
	if second := w.solve(t, build()); second == first {
		t.Errorf("the tree is still %q", second)
	}
	w.wantRan(t, "copy date", "copy date", "date", "date", "use", "use")
}

// A stage was dropped and comes out different when it is made again: what was
// recorded for its old content must neither be found nor replaced.
func TestInvariant01_DroppedStageNeverWritesUnderTheOldKey(t *testing.T) {
	w := newWorld()
	root := exec("use", exec("date", image("base")))
	w.output["date"] = "monday"
	monday := w.solve(t, root)
	before := len(w.layers)
	w.wantRan(t, "date", "use")

	w.drop("date", "use")
	w.output["date"] = "tuesday"
	tuesday := w.solve(t, root)
	w.wantRan(t, "date", "use")
	if tuesday == monday {
		t.Errorf("the tree is still %q", tuesday)
	}
	if len(w.layers) != before+1 { // date's key now stands for tuesday; use has one more
		t.Errorf("%d keys are recorded, want %d", len(w.layers), before+1)
	}
	w.solve(t, root)
	w.wantRan(t)
}

// The top is kept and what is below it is gone: the top is of no use.
func TestInvariant02_LayerWithoutItsBaseIsMadeAgain(t *testing.T) {
	w := newWorld()
	root := exec("top", exec("bottom", image("base")))
	w.solve(t, root)
	w.wantRan(t, "bottom", "top")
	w.drop("bottom")
	w.solve(t, root)
	w.wantRan(t, "bottom", "top")
}

// A dropped stage whose files are known by their digest is not made again as
// long as nothing that reads them has to run.
func TestInvariant01_DigestsOutliveTheirTree(t *testing.T) {
	w := newWorld()
	root := copyFrom("ship", image("base"), exec("compile", image("go")))
	w.solve(t, root)
	w.wantRan(t, "compile", "ship")
	w.drop("compile")
	w.solve(t, root)
	w.wantRan(t)
}

func TestInvariant07_ChangedContextIsReadAgainOnce(t *testing.T) {
	for _, tt := range []struct {
		name    string
		changes int
		wantErr error
	}{
		{"once", 1, nil},
		{"always", 5, solve.ErrChanged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			w.changes = tt.changes
			_, err := solve.Solve(t.Context(), w.options(), exec("make", image("base"), files(context1("src"))))
			if !errors.Is(err, tt.wantErr) {
				t.Errorf("err = %v, want %v", err, tt.wantErr)
			}
			if w.hashed != 2 {
				t.Errorf("the context was hashed %d times, want 2", w.hashed)
			}
		})
	}
}

// The first RUN of the final stage must not wait for the stages that later
// steps copy from.
func TestInvariant08_StagesOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := exec("a", image("base a")), exec("b", image("base b"))
		first := exec("first", image("base"))
		final := copyFrom("copy b", copyFrom("copy a", first, a), b)
		w := newWorld()
		w.sleep["a"], w.sleep["b"], w.sleep["first"] = time.Hour, time.Hour, time.Hour
		start := time.Now()
		w.solve(t, final)
		if took := time.Since(start); took != time.Hour {
			t.Errorf("solving took %v, want 1h: the stages did not overlap", took)
		}
	})
}

func TestInvariant08_FortyStagesSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		final := image("base")
		for i := range 40 {
			name := fmt.Sprint("stage ", i)
			w.sleep[name] = time.Hour
			final = copyFrom(fmt.Sprint("copy ", i), final, exec(name, image("base")))
		}
		opts := w.options()
		opts.Jobs = 40
		start := time.Now()
		if _, err := solve.Solve(t.Context(), opts, final); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != time.Hour {
			t.Errorf("solving took %v, want 1h", took)
		}
	})
}

// The base is fetched while a stage that the step also reads is still built.
func TestInvariant08_TreesAreReadyWhenTheyAreNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.sleep["stage"], w.sleep["prepare base"] = time.Hour, time.Hour
		root := exec("use", exec("first", image("base")), files(exec("stage", image("other"))))
		start := time.Now()
		w.solve(t, root)
		if took := time.Since(start); took != time.Hour {
			t.Errorf("solving took %v, want 1h", took)
		}
	})
}

func TestSolve_JobsBoundRunningOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.every = time.Second
		var roots []*graph.Node
		for i := range 8 {
			n := image(fmt.Sprint(i))
			for depth := range 6 {
				n = exec(fmt.Sprint(i, ".", depth), n)
			}
			roots = append(roots, n)
		}
		opts := w.options()
		opts.Jobs = 2
		start := time.Now()
		if _, err := solve.Solve(t.Context(), opts, roots...); err != nil {
			t.Fatal(err)
		}
		// 8 chains of 6 nodes, one second each, two at a time.
		if took := time.Since(start); took != 24*time.Second {
			t.Errorf("took %v, want 24s", took)
		}
	})
}

func TestSolve_StackIsFree(t *testing.T) {
	w := newWorld()
	linked := &graph.Node{
		Op:     graph.Copy{Link: true, Dest: "linked"},
		Label:  "linked",
		Inputs: []graph.Input{files(context1("src"))},
	}
	on := func(base string) *graph.Node {
		return &graph.Node{Op: graph.Stack{}, Inputs: []graph.Input{{From: image(base)}, {From: linked}}}
	}
	if got, want := w.solve(t, on("base v1")), "base v1 linked[src]"; got != want {
		t.Errorf("tree = %q, want %q", got, want)
	}
	w.wantRan(t, "linked")
	if got, want := w.solve(t, on("base v2")), "base v2 linked[src]"; got != want {
		t.Errorf("tree = %q, want %q", got, want)
	}
	w.wantRan(t)
}

func BenchmarkSolve_AllCached(b *testing.B) {
	n := image("base")
	for i := range 1000 {
		n = exec(fmt.Sprint("step", i), n)
	}
	w := newWorld()
	if _, err := solve.Solve(b.Context(), w.options(), n); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := solve.Solve(b.Context(), w.options(), n); err != nil {
			b.Fatal(err)
		}
	}
}
