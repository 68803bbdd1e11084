package main

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"joinery/auditlog"

	"golang.org/x/mod/sumdb/note"
)

// tokenSigner signs a note with the log's key in a token.
type tokenSigner struct {
	note.Verifier
	sign func(text []byte) ([]byte, error)
}

// Sign implements note.Signer.
func (s tokenSigner) Sign(text []byte) ([]byte, error) { return s.sign(text) }

// The log's key comes of a key in the token: whatever process has the token open
// signs with the same one, what it signs is a checkpoint that everybody verifies,
// and it signs nothing else.
func TestLogKeyOutlivesProcesses(t *testing.T) {
	o, _, _ := token(t, "in-token")
	keys := start(t, o)
	public, err := keys.LogKey(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	key := auditlog.NewKey("log.example", public)
	verifier, err := note.NewVerifier(key.String())
	if err != nil {
		t.Fatal(err)
	}
	c := auditlog.Checkpoint{Origin: "log.example", Size: 7, Root: sha256.Sum256([]byte("tree"))}
	for _, after := range []string{"the first process", "the one after it"} {
		signed, err := note.Sign(&note.Note{Text: string(c.Text())}, tokenSigner{verifier, func(text []byte) ([]byte, error) {
			return keys.SignCheckpoint(t.Context(), 1, text)
		}})
		if err != nil {
			t.Fatalf("%s: %v", after, err)
		}
		if opened, _, err := key.Open(string(signed)); err != nil || opened.Size != c.Size || opened.Root != c.Root {
			t.Errorf("%s: %+v, %v", after, opened, err)
		}
		again, err := keys.LogKey(t.Context(), 1)
		if err != nil || !bytes.Equal(again, public) {
			t.Errorf("%s has another key: %v", after, err)
		}
		if _, err := keys.SignCheckpoint(t.Context(), 1, []byte("anything else\n")); err == nil {
			t.Errorf("%s signs what is no checkpoint", after)
		}
		if err := keys.Replace(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
