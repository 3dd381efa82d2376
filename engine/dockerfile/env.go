package dockerfile

import (
	"fmt"
	"maps"
	"slices"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// env is a list of variables. Setting one again moves it to the end: that is
// the order in which BuildKit shows them to a command, and part of its key.
type env struct {
	names  []string
	values map[string]string
}

func (e *env) clone() *env {
	c := &env{names: slices.Clone(e.names), values: make(map[string]string, len(e.values)+8)}
	maps.Copy(c.values, e.values)
	return c
}

func (e *env) set(name, value string) {
	if e.values == nil {
		e.values = make(map[string]string)
	}
	e.unset(name)
	e.names = append(e.names, name)
	e.values[name] = value
}

func (e *env) unset(name string) {
	if _, ok := e.values[name]; !ok {
		return
	}
	delete(e.values, name)
	i := slices.Index(e.names, name)
	e.names = slices.Delete(e.names, i, i+1)
}

// list returns the variables as NAME=value.
func (e *env) list() []string {
	list := make([]string, len(e.names))
	for i, name := range e.names {
		list[i] = name + "=" + e.values[name]
	}
	return list
}

// Get and Keys make env a shell.EnvGetter.

func (e *env) Get(name string) (value string, ok bool) {
	value, ok = e.values[name]
	return value, ok
}

func (e *env) Keys() []string { return e.names }

// masked shows stars in place of variables that come from secrets.
type masked struct {
	*env
	secrets map[string]bool
}

func (m masked) Get(name string) (value string, ok bool) {
	if m.secrets[name] {
		return "****", true
	}
	return m.env.Get(name)
}

// maxExpanded is how many bytes of variables a word may be expanded with. A few
// lines that double a variable would need more memory than there is.
const maxExpanded = 1 << 20

// A ration is variables of which no more than left bytes are handed out.
type ration struct {
	*env
	left int
}

func (r *ration) Get(name string) (value string, ok bool) {
	value, ok = r.env.Get(name)
	if r.left -= len(value); r.left < 0 {
		return "", ok
	}
	return value, ok
}

// expandWord expands the variables of a word, and says which there are not.
func expandWord(lex *shell.Lex, word string, vars *env) (string, map[string]struct{}, error) {
	r := &ration{vars, maxExpanded}
	res, err := lex.ProcessWordWithMatches(word, r)
	if err == nil && r.left < 0 {
		err = fmt.Errorf("expanding variables gives more than %d bytes", maxExpanded)
	}
	return res.Result, res.Unmatched, err
}
