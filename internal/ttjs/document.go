package ttjs

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
)

// openAPI describes this API. Its paths are compared with the routes by a test.
//
//go:embed openapi.json
var openAPI []byte

// newDocument gives openAPI with the version of the server.
func newDocument(version string) ([]byte, error) {
	var document map[string]any
	if err := json.Unmarshal(openAPI, &document); err != nil {
		return nil, fmt.Errorf("the API's document: %w", err)
	}
	if info, ok := document["info"].(map[string]any); ok && version != "" {
		info["version"] = version
	}
	return json.Marshal(document)
}

// serveDocument gives the description of this API to anybody: GET /openapi.json.
func (s *Server) serveDocument(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/openapi+json")
	_, _ = w.Write(s.document)
}
