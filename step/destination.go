package step

import (
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/engine"
)

// outputTypes are the types of output, and whether each is written to a file.
var outputTypes = map[string]struct{ file, dir bool }{
	"image": {}, "registry": {}, "cacheonly": {},
	"oci": {file: true}, "docker": {file: true}, "tar": {file: true},
	"local": {dir: true},
}

// setOutput parses type=TYPE,name=value,… in CSV quotes where it needs them. A
// path alone is a local directory, a - alone a tar on standard output.
func setOutput(l *loader, s string) error {
	o, err := parseOutput(s)
	if err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	l.outputs = append(l.outputs, o)
	return nil
}

func parseOutput(s string) (engine.Output, error) {
	r := csv.NewReader(strings.NewReader(s))
	r.LazyQuotes = true
	attrs, err := r.Read()
	if err != nil {
		return engine.Output{}, errors.New("want type=TYPE,NAME=VALUE,…")
	}
	if len(attrs) == 1 && attrs[0] == s && !strings.HasPrefix(s, "type=") {
		if s == "-" {
			return engine.Output{Type: "tar", Attrs: map[string]string{"dest": "-"}}, nil
		}
		return engine.Output{Type: "local", Attrs: map[string]string{"dest": s}}, nil
	}
	o := engine.Output{Attrs: make(map[string]string)}
	for _, attr := range attrs {
		name, value, ok := strings.Cut(attr, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		switch {
		case !ok:
			return o, fmt.Errorf("%q is not NAME=VALUE", attr)
		case name == "type":
			o.Type = value
		default:
			o.Attrs[name] = value
		}
	}
	return o, checkOutput(o)
}

func checkOutput(o engine.Output) error {
	t, ok := outputTypes[o.Type]
	dest := o.Attrs["dest"]
	switch {
	case o.Type == "":
		return errors.New("type is missing")
	case !ok:
		return fmt.Errorf("%q is not one of %s", o.Type, strings.Join(slices.Sorted(maps.Keys(outputTypes)), ", "))
	case !t.file && !t.dir:
		return nil
	case dest == "" && o.Type == "docker":
		return errors.New("dest is missing: there is no Docker daemon to load into")
	case dest == "":
		return errors.New("dest is missing")
	case dest == "-" && (t.dir || o.Attrs["tar"] == "false"):
		return errors.New("a directory cannot go to standard output")
	}
	return nil
}

// finishOutputs makes the list of outputs complete.
func finishOutputs(outputs []engine.Output, push bool) ([]engine.Output, error) {
	streams, pushed := 0, false
	for i, o := range outputs {
		if o.Attrs["dest"] == "-" {
			streams++
		}
		if push && o.Type == "image" {
			outputs[i].Attrs["push"] = "true"
		}
		pushed = pushed || pushes(outputs[i])
	}
	if streams > 1 {
		return nil, errors.New("only one output can go to standard output")
	}
	if push && !pushed {
		outputs = append(outputs, engine.Output{Type: "image", Attrs: map[string]string{"push": "true"}})
	}
	return outputs, nil
}

func pushes(o engine.Output) bool {
	return o.Type == "registry" || o.Type == "image" && o.Attrs["push"] == "true"
}
