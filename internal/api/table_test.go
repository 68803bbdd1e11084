package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"joinery/client"
)

// Requests that come together share a table; later ones get a new one where it was
// dropped, and what has the old one goes on with it.
func TestTableIsMadeWhenItIsNeeded(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	s.tables.new = func() (*table, error) { made++; return s.newTable() }
	ask := func() {
		t.Helper()
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, client.BasePath+"/openapi.json", nil))
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "/devices") {
			t.Fatalf("status %d", w.Code)
		}
	}
	if made != 0 {
		t.Fatal("a table was made before there was a request")
	}
	ask()
	ask()
	if made != 1 {
		t.Fatalf("two requests made %d tables, want one", made)
	}
	old, _ := s.tables.get()
	s.tables.drop()
	ask()
	if now, _ := s.tables.get(); made != 2 || now == old {
		t.Fatalf("after the table was dropped %d were made in all, want 2", made)
	}
	w := httptest.NewRecorder()
	old.mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, client.BasePath+"/openapi.json", nil))
	if w.Code != http.StatusOK {
		t.Errorf("a request that had the table when it was dropped got %d", w.Code)
	}
}

func BenchmarkTable(b *testing.B) {
	s, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.newTable(); err != nil {
			b.Fatal(err)
		}
	}
}
