package graph_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/content"
	"github.com/slipway-build/slipway/engine/graph"
)

// Each field of each op is either part of its digest or named here.
func TestInvariant06_EveryFieldCountsOrIsAnException(t *testing.T) {
	tests := []struct {
		name   string
		op     func() any // a pointer to an op with every field set
		except []string   // prefixes of fields that are no part of the definition
	}{
		{"image", func() any {
			return &graph.Source{Kind: graph.Image, Name: "name", Layers: []graph.ImageLayer{
				{DiffID: digest.FromString("x"), Blob: content.Descriptor{Digest: digest.FromString("y"), Size: 1, MediaType: "z"}},
			}}
		}, []string{
			"Name",        // what the user wrote: the layers count
			"Layers.Blob", // how a layer is packed and where it is found
		}},
		{"local", func() any { return &graph.Source{Kind: graph.Local, Name: "name"} }, nil},
		{"exec", func() any { op := fullExec(); return &op }, []string{
			"Hosts.IP",     // addresses come and go
			"Proxy",        // proxies are not to be in a key unless they are declared
			"CgroupParent", // limits don't change results
		}},
		{"copy", func() any { op := fullCopy(); return &op }, []string{
			"Sources[1].Input", "Sources[1].Request", // of an inline source
		}},
		{"link", func() any { op := fullCopy(); op.Link = true; return &op }, []string{"Sources[1].Input", "Sources[1].Request"}},
		{"stack", func() any { return &graph.Stack{} }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := opDigest(tt.op())
			if opDigest(tt.op()) != want {
				t.Fatal("two digests of one definition")
			}
			seen := map[digest.Digest]string{}
			for i := 0; ; i++ {
				op := tt.op()
				field, ok := change(reflect.ValueOf(op).Elem(), i)
				if !ok {
					break
				}
				got := opDigest(op)
				plain := strings.NewReplacer("[0]", "", "[+]", "").Replace(field)
				excepted := slices.ContainsFunc(tt.except, func(p string) bool { return strings.HasPrefix(plain, p) })
				if same := got == want; same != excepted {
					t.Errorf("changing %s: the same digest is %v, an exception is %v", field, same, excepted)
				}
				if other, ok := seen[got]; ok && !excepted {
					t.Errorf("changing %s and changing %s give the same digest", field, other)
				}
				if !excepted {
					seen[got] = field
				}
			}
		})
	}
}

func TestInvariant06_SelectionsDiffer(t *testing.T) {
	want := graph.Select{Requests: []graph.Request{fullRequest()}}.Digest()
	for i := 0; ; i++ {
		s := graph.Select{Requests: []graph.Request{fullRequest()}}
		field, ok := change(reflect.ValueOf(&s).Elem(), i)
		if !ok {
			break
		}
		if s.Digest() == want {
			t.Errorf("changing %s does not change the digest", field)
		}
	}
}

// What is next to each other must not flow into each other.
func TestInvariant06_DefinitionsNeverCollide(t *testing.T) {
	ops := []graph.Op{
		graph.Exec{},
		graph.Exec{Args: []string{"a", "b"}},
		graph.Exec{Args: []string{"ab"}},
		graph.Exec{Args: []string{"a\x00b"}},
		graph.Exec{Args: []string{"a"}, Env: []string{"b"}},
		graph.Exec{Args: []string{"a", "b", ""}},
		graph.Exec{Args: []string{"\xff"}},
		graph.Exec{Args: []string{"\xfe"}}, // JSON would fold these two
		graph.Exec{Args: []string{"\ufffd"}},
		graph.Exec{Dir: "x"},
		graph.Exec{User: "x"},
		graph.Copy{},
		graph.Copy{Dest: "x"},
		graph.Copy{Mode: "x"},
		graph.Copy{Sources: []graph.CopySource{{}}},
		graph.Copy{Sources: []graph.CopySource{{Inline: &graph.Inline{}}}},
		graph.Stack{},
		graph.Source{Kind: graph.Scratch},
		graph.Source{Kind: graph.Image},
		graph.Source{Kind: graph.Local},
	}
	seen := make(map[digest.Digest]graph.Op)
	for _, op := range ops {
		d := graph.OpDigest(op)
		if other, ok := seen[d]; ok {
			t.Errorf("%#v and %#v have the same digest", op, other)
		}
		seen[d] = op
	}
}

// The encoding is a promise to every cache in the world: it changes only on
// purpose.
func TestOpDigest_StaysTheSame(t *testing.T) {
	exec, cp := fullExec(), fullCopy()
	got := fmt.Sprintf("%.12s %.12s %.12s", graph.OpDigest(exec).Encoded(), graph.OpDigest(cp).Encoded(), graph.OpDigest(graph.Stack{}).Encoded())
	if want := "314a5f863d92 1f6bf4badcbc 15da5b5d01a8"; got != want {
		t.Errorf("digests are %s, want %s", got, want)
	}
}

func opDigest(op any) digest.Digest {
	return graph.OpDigest(reflect.ValueOf(op).Elem().Interface().(graph.Op))
}

// change changes the nth thing of v that can be changed, and says which it is.
func change(v reflect.Value, n int) (field string, ok bool) {
	c := changer{n: n}
	c.walk(v, "")
	return c.field, c.field != ""
}

type changer struct {
	n     int
	field string
}

func (c *changer) walk(v reflect.Value, path string) {
	if c.field != "" {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			c.walk(v.Field(i), strings.TrimPrefix(path+"."+v.Type().Field(i).Name, "."))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			c.walk(v.Elem(), path)
		}
	case reflect.Slice:
		if c.take(path + "[+]") {
			v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
			return
		}
		for i := range v.Len() {
			c.walk(v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	case reflect.Map:
	default:
		if c.take(path) {
			bump(v)
		}
	}
}

// take counts one thing, and reports whether it is the one.
func (c *changer) take(path string) bool {
	if c.field != "" {
		return false
	}
	if c.n--; c.n >= 0 {
		return false
	}
	c.field = path
	return true
}

func bump(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint8, reflect.Uint32:
		v.SetUint(v.Uint() + 1)
	default:
		panic("graph_test: no way to change a " + v.Kind().String())
	}
}
