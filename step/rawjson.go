package step

import (
	"encoding/json"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/engine/progress"
)

// jsonView writes one JSON object a line for each event, in the form of
// BuildKit's SolveStatus, which docker buildx build --progress=rawjson writes.
type jsonView struct{ enc *json.Encoder }

func newJSONView(w io.Writer) jsonView {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return jsonView{enc}
}

type jsonStatus struct {
	Vertexes []jsonVertex   `json:"vertexes,omitempty"`
	Statuses []jsonTransfer `json:"statuses,omitempty"`
	Logs     []jsonLog      `json:"logs,omitempty"`
	Warnings []jsonWarning  `json:"warnings,omitempty"`
}

type jsonVertex struct {
	Digest    digest.Digest `json:"digest"`
	Name      string        `json:"name"`
	Started   *time.Time    `json:"started,omitempty"`
	Completed *time.Time    `json:"completed,omitempty"`
	Cached    bool          `json:"cached,omitempty"`
	Error     string        `json:"error,omitempty"`
}

type jsonTransfer struct {
	ID        string        `json:"id"`
	Vertex    digest.Digest `json:"vertex"`
	Name      string        `json:"name"`
	Total     int64         `json:"total,omitempty"`
	Current   int64         `json:"current"`
	Timestamp time.Time     `json:"timestamp"`
	Started   time.Time     `json:"started"`
}

type jsonLog struct {
	Vertex    digest.Digest `json:"vertex"`
	Stream    int           `json:"stream"`
	Data      []byte        `json:"data"`
	Timestamp time.Time     `json:"timestamp"`
}

type jsonWarning struct {
	Vertex digest.Digest `json:"vertex,omitempty"`
	Level  int           `json:"level"`
	Short  []byte        `json:"short"`
}

func (v jsonView) show(ev progress.Event, st *stepState) {
	var id digest.Digest
	if st != nil {
		id = digest.FromString(ev.Step) // consumers expect a digest
	}
	var s jsonStatus
	switch ev.Kind {
	case progress.Started:
		s.Vertexes = []jsonVertex{{Digest: id, Name: ev.Name, Started: &st.began}}
	case progress.Cached, progress.Finished, progress.Failed:
		vertex := jsonVertex{Digest: id, Name: ev.Name, Started: &st.began, Completed: &st.ended, Cached: ev.Kind == progress.Cached}
		if ev.Err != nil {
			vertex.Error = ev.Err.Error()
		}
		s.Vertexes = []jsonVertex{vertex}
	case progress.Output:
		s.Logs = []jsonLog{{Vertex: id, Stream: 1, Data: []byte(ev.Line + "\n"), Timestamp: ev.Time}}
	case progress.Transfer:
		s.Statuses = []jsonTransfer{{
			ID: ev.Step, Vertex: id, Name: ev.Name, Total: ev.Total, Current: ev.Done, Timestamp: ev.Time, Started: st.began,
		}}
	case progress.Warning:
		s.Warnings = []jsonWarning{{Vertex: id, Level: 1, Short: []byte(ev.Line)}}
	}
	_ = v.enc.Encode(s) // a log that cannot be written does not fail a build
}

func (jsonView) tick(time.Time) {}
func (jsonView) close()         {}
