package ttjs

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// The document has every route, and no other.
func TestDocumentHasEveryRoute(t *testing.T) {
	s, err := New(Options{Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, Base+"/openapi.json", nil))
	var d struct {
		Info    struct{ Version string }
		Servers []struct{ URL string }
		Paths   map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if d.Info.Version != "1.2.3" || len(d.Servers) != 1 || d.Servers[0].URL != Base {
		t.Errorf("%+v %+v", d.Info, d.Servers)
	}
	var documented, served []string
	for path, methods := range d.Paths {
		for method := range methods {
			if method != "parameters" {
				documented = append(documented, strings.ToUpper(method)+" "+path)
			}
		}
	}
	for _, r := range s.routes() {
		served = append(served, r.method+" "+r.path)
	}
	slices.Sort(documented)
	slices.Sort(served)
	if !slices.Equal(documented, served) {
		t.Errorf("documented %q\nserved %q", documented, served)
	}
	if strings.Contains(w.Body.String(), "rootKey\"") {
		t.Error("the document speaks of root keys")
	}
}

// What no route takes is said in this API's form, without the path.
func TestNoSuchPath(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for _, tc := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{http.MethodGet, "/api/v2/SECRET", 404, ""},
		{http.MethodGet, "/api/v2/devices/../SECRET", 404, ""},
		{http.MethodGet, "/api/v2//openapi.json", 404, ""},
		{http.MethodPost, "/api/v2/devices/SECRET/claim", 405, "DELETE, GET, HEAD, PUT"},
		{http.MethodPatch, "/api/v2/devices/SECRET/claims", 405, "DELETE"},
	} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(tc.method, tc.path, nil))
		if w.Code != tc.status || w.Header().Get("Allow") != tc.allow || strings.Contains(w.Body.String(), "SECRET") {
			t.Errorf("%s %s: %d %v %s", tc.method, tc.path, w.Code, w.Header(), w.Body)
		}
	}
}
