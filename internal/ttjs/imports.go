package ttjs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"joinery"
	"joinery/internal/provisioning"
	"joinery/lorawan"
	"joinery/manifest"
)

// Bounds of imports.
const (
	maxImport     = 24 << 20
	importTimeout = 90 * time.Second // within what the listener gives an answer
	maxRowErrors  = 500
)

// format is a kind of file that can be imported.
type format struct {
	ID             string   `json:"id"`
	Name           string   `json:"name"`
	Description    string   `json:"description"`
	FileExtensions []string `json:"fileExtensions"`
}

// Names of formats. The second is one of the original's that is not taken here.
const (
	formatMicrochip = "microchip-atecc608"
	formatCSV       = "csv"
)

// importsAtOnce bounds the bodies of imports in memory.
const importsAtOnce = 2

// importing is the organisations of which an import runs, one each, so that no
// organisation takes the room of another.
type importing struct {
	mu   sync.Mutex
	orgs map[joinery.OrgID]bool
}

// enter begins an import, or says that there is no room now. leave ends it.
func (i *importing) enter(org joinery.OrgID) (leave func(), err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.orgs[org]:
		return nil, joinery.Later(joinery.Errorf(joinery.CodeRateLimited, "an import of this organisation runs; send the file when it has ended"), 10*time.Second)
	case len(i.orgs) >= importsAtOnce:
		return nil, joinery.Errorf(joinery.CodeUnavailable, "as many imports run as the server takes at once; try again")
	case i.orgs == nil:
		i.orgs = map[joinery.OrgID]bool{}
	}
	i.orgs[org] = true
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.orgs, org)
	}, nil
}

// listFormats tells what importDevices takes: GET /devices/import/formats.
func (s *Server) listFormats(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, []format{{
		ID: formatMicrochip, Name: "Microchip ATECC608 manifest", FileExtensions: []string{".json"},
		Description: "Signed manifest of Microchip secure elements: a JSON array with one JWS for each",
	}})
}

// imported is the answer of importDevices.
type imported struct {
	Import    joinery.ImportID `json:"import"`
	Created   uint64           `json:"created"`
	Unchanged uint64           `json:"unchanged"`
	Failed    uint64           `json:"failed"`
	// Errors tells of the first 500 entries that failed.
	Errors []rowError `json:"errors"`
}

// rowError is why one entry of a file failed. Index counts from 0.
type rowError struct {
	Index   uint64 `json:"index"`
	DevEUI  string `json:"devEUI,omitempty"`
	Message string `json:"message"`
}

// importDevices imports a file whole: POST /devices/import/{format}. A request that
// was cut off is repeated with the same file, and goes on where it was.
func (s *Server) importDevices(w http.ResponseWriter, r *http.Request, caller joinery.Caller) {
	switch r.PathValue("format") {
	case formatMicrochip:
	case formatCSV:
		// Not even read: its keys would be readable in memory.
		writeMessage(w, http.StatusBadRequest, "no CSV is taken here, because its keys are readable: "+
			"'joinctl import keys' encrypts them to this server before they leave your machine")
		return
	default:
		writeMessage(w, http.StatusNotFound, "no such format; "+Base+"/devices/import/formats lists them")
		return
	}
	leave, err := s.imports.enter(caller.Org)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer leave()
	ctx, cancel := context.WithTimeout(r.Context(), importTimeout)
	defer cancel()
	answer, err := s.importManifest(ctx, w, r, caller)
	if err != nil && ctx.Err() != nil {
		err = joinery.WrapError(joinery.CodeUnavailable, err, "the import takes longer than an answer may; send the same file again, and it goes on")
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

// importManifest imports the manifest in the body of r.
func (s *Server) importManifest(ctx context.Context, w http.ResponseWriter, r *http.Request, caller joinery.Caller) (imported, error) {
	// The manifest does not say it. Of the versions that elements are made with it
	// is the one which asks least: a device that counts its DevNonces joins, too.
	version := lorawan.MAC1_0_3
	if text := r.URL.Query().Get("macVersion"); text != "" {
		var err error
		if version, err = lorawan.ParseMACVersion(text); err != nil {
			return imported{}, joinery.WrapError(joinery.CodeInvalid, err, "macVersion: want a LoRaWAN version, such as 1.0.4")
		}
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxImport))
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
		return imported{}, joinery.Errorf(joinery.CodeTooLarge, "the file is larger than %d MB: import it with 'joinctl import manifest', or in parts", maxImport>>20)
	}
	if err != nil {
		return imported{}, joinery.Errorf(joinery.CodeInvalid, "the body could not be read")
	}
	i, err := s.Imports.Begin(ctx, caller, provisioning.Spec{
		Org: caller.Org, Kind: joinery.ImportManifest, SHA256: sha256.Sum256(text), MACVersion: version,
	})
	if err != nil {
		return imported{}, err
	}
	if i, err = s.importEntries(ctx, caller, i, manifest.NewReader(bytes.NewReader(text))); err != nil {
		return imported{}, err
	}
	failed, err := s.Imports.Errors(ctx, caller, i.ID, 0, maxRowErrors)
	if err != nil {
		return imported{}, err
	}
	answer := imported{Import: i.ID, Created: i.Created, Unchanged: i.Unchanged, Failed: i.Failed, Errors: []rowError{}}
	for _, row := range failed {
		e := rowError{Index: row.Index, Message: row.Reason}
		if !row.DevEUI.IsZero() {
			e.DevEUI = row.DevEUI.String()
		}
		answer.Errors = append(answer.Errors, e)
	}
	return answer, nil
}

// importEntries gives the entries that were not taken yet to the rules, in runs of
// as many as one transaction takes.
func (s *Server) importEntries(ctx context.Context, caller joinery.Caller, i joinery.Import, file *manifest.Reader) (joinery.Import, error) {
	for at := uint64(0); !i.Done; {
		c := provisioning.Chunk{Import: i.ID, From: i.Next}
		for len(c.Entries) < joinery.MaxImportRows && !c.Last {
			entry, err := file.Next()
			switch {
			case errors.Is(err, io.EOF):
				c.Last = true
			case err != nil:
				return i, joinery.WrapError(joinery.CodeInvalid, err, "%v; want a JSON array of signed entries", err)
			case at < i.Next:
				at++
			default:
				at++
				c.Entries = append(c.Entries, json.RawMessage(entry))
			}
		}
		var err error
		if _, i, err = s.Imports.Rows(ctx, caller, c); err != nil {
			return i, err
		}
	}
	return i, nil
}
