package custodylog

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"joinery/auditlog"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// testWitness is a witness over HTTP (c2sp.org/tlog-witness), which checks what it
// signs.
type testWitness struct {
	t    *testing.T
	key  ed25519.PrivateKey
	log  func() auditlog.Key
	mu   sync.Mutex
	seen auditlog.Checkpoint
	away bool
}

const witnessName = "witness.example"

func (w *testWitness) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil || w.away || r.URL.Path != "/w/add-checkpoint" || r.Method != http.MethodPost {
		out.WriteHeader(http.StatusInternalServerError)
		return
	}
	head, signed, _ := strings.Cut(string(body), "\n\n")
	lines := strings.Split(head, "\n")
	c, _, err := w.log().Open(signed)
	if err != nil {
		out.WriteHeader(http.StatusForbidden)
		return
	}
	var old int64
	if _, err := fmt.Sscanf(lines[0], "old %d", &old); err != nil || old > c.Size {
		out.WriteHeader(http.StatusBadRequest)
		return
	}
	if old != w.seen.Size {
		out.Header().Set("Content-Type", "text/x.tlog.size")
		out.WriteHeader(http.StatusConflict)
		_, _ = fmt.Fprintf(out, "%d\n", w.seen.Size)
		return
	}
	var proof tlog.TreeProof
	for _, line := range lines[1:] {
		b, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(b) != tlog.HashSize {
			out.WriteHeader(http.StatusBadRequest)
			return
		}
		proof = append(proof, tlog.Hash(b))
	}
	if old > 0 && old < c.Size && tlog.CheckTree(proof, c.Size, tlog.Hash(c.Root), old, tlog.Hash(w.seen.Root)) != nil {
		out.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	w.seen = c
	text, _, _ := strings.Cut(signed, "\n\n")
	const at = 1_800_000_000
	sig := binary.BigEndian.AppendUint64(nil, at)
	sig = append(sig, ed25519.Sign(w.key, auditlog.CosignedText(at, []byte(text+"\n")))...)
	verifier, err := auditlog.NewWitness(w.vkey())
	if err != nil {
		w.t.Error(err)
	}
	named := binary.BigEndian.AppendUint32(nil, verifier.KeyHash())
	_, _ = fmt.Fprintf(out, "— %s %s\n", witnessName, base64.StdEncoding.EncodeToString(append(named, sig...)))
}

func (w *testWitness) vkey() string {
	return auditlog.WitnessKey(witnessName, w.key.Public().(ed25519.PublicKey))
}

// A witness signs what continues what it saw; a log that goes on without it is
// found by who wants its signature.
func TestWitness(t *testing.T) {
	witness := &testWitness{t: t, key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))}
	server := httptest.NewServer(witness)
	defer server.Close()
	w := newWorld(t, Options{Witnesses: []Witness{{URL: server.URL + "/w/", Key: witness.vkey()}}})
	witness.log = func() auditlog.Key { return w.trust().Key }
	d := w.devices[0]
	trust := w.trust()
	verifier, err := auditlog.NewWitness(witness.vkey())
	w.ok(err)
	trust.Witnesses = []note.Verifier{verifier}
	for range 3 {
		w.join(d)
		trust.Old = w.publish()
		if r := w.good(w.bundle(operator, d, 0), trust); len(r.Cosigned) != 1 {
			t.Fatalf("%+v", r)
		}
	}
	w.ok(w.db.SaveWitnessSize(w.ctx, witnessName, 1, 1)) // as if that were forgotten
	w.join(d)
	w.publish()
	w.good(w.bundle(operator, d, 0), auditlog.Trust{Key: trust.Key, Witnesses: trust.Witnesses})
	witness.mu.Lock()
	witness.away = true
	witness.mu.Unlock()
	if stats, err := w.Stats(w.ctx); err != nil || stats.Missed[witnessName] != 0 {
		t.Errorf("%+v, %v", stats, err)
	}
	w.join(d)
	w.publish()
	if stats, err := w.Stats(w.ctx); err != nil || stats.Missed[witnessName] != 1 {
		t.Errorf("%+v, %v", stats, err)
	}
	b := w.bundle(operator, d, 0)
	w.good(b, auditlog.Trust{Key: trust.Key})
	r := auditlog.Verify(b, auditlog.Trust{Key: trust.Key, Witnesses: trust.Witnesses})
	if len(r.Findings) != 1 || r.Findings[0].Fault != auditlog.FaultWitness {
		t.Errorf("%v", r.Findings)
	}
	if _, err := New(w.db, keys, Options{Witnesses: []Witness{{URL: server.URL, Key: "nonsense"}}}); err == nil {
		t.Error("a key that is none is taken")
	}
}
