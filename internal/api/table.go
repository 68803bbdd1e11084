package api

import (
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// tableIdle is how long a table is kept for the next request.
const tableIdle = 5 * time.Minute

// table is what a request is found in and held against: the routes, with the
// schemas of what they take.
type table struct {
	mux  *http.ServeMux
	huma huma.API
}

// tables keeps a table while there are requests. It is some megabytes of small
// objects, patterns for the most part, which is more than all else that lives in a
// server; were it always there, the collector would look through it a dozen times a
// second while devices join, for a door that nobody may come through all day. To
// make one takes some hundredths of a second.
type tables struct {
	new func() (*table, error)

	mu   sync.Mutex
	kept *table
	idle *time.Timer
}

// get gives the table that is kept, or makes one.
func (t *tables) get() (*table, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kept != nil {
		t.idle.Reset(tableIdle)
		return t.kept, nil
	}
	made, err := t.new()
	if err != nil {
		return nil, err
	}
	t.kept, t.idle = made, time.AfterFunc(tableIdle, t.drop)
	return made, nil
}

// drop forgets the table. Requests that have it end with it.
func (t *tables) drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kept != nil {
		t.idle.Stop()
		t.kept = nil
	}
}

// newTable registers all routes. Its errors, and panics of huma, are mistakes in
// this package.
func (s *Server) newTable() (*table, error) {
	s.making.Lock()
	defer s.making.Unlock()
	mux := http.NewServeMux()
	t := &table{mux: mux, huma: humago.New(mux, s.config())}
	t.huma.UseMiddleware(s.authenticate, s.throttle, s.readBody, s.strict, s.setTerms)
	s.made = t
	defer func() { s.made = nil }()
	s.register()
	if err := s.unlisted(); err != nil {
		return nil, err
	}
	s.registerSignIn()
	s.servePublicLog()
	s.registerUnseal()
	s.serveDocument()
	return t, fixDocument(t.huma.OpenAPI())
}

// registry has the schemas that others refer to.
func (s *Server) registry() huma.Registry {
	t, err := s.tables.get()
	if err != nil {
		return huma.NewMapRegistry("", huma.DefaultSchemaNamer) // of no request: each comes out of a table
	}
	return t.huma.OpenAPI().Components.Schemas
}
