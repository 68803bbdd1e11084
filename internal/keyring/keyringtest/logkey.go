package keyringtest

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"

	"joinery/internal/keyring"
)

// testLogKey: one key for each generation, which signs checkpoints and nothing
// else.
func testLogKey(t *testing.T, f Fixture) {
	const checkpoint = "log.example\n5\nK1Q0Jl3b4h7pK8bSeK7p0yCPmdFvR2c4T5v6w7x8y9A=\n"
	first, err := f.Keyring.LogKey(t.Context(), 1)
	if err != nil || len(first) != ed25519.PublicKeySize {
		t.Fatalf("%d bytes, %v", len(first), err)
	}
	second, err := f.Keyring.LogKey(t.Context(), 2)
	if err != nil || bytes.Equal(first, second) {
		t.Fatal("two generations have one key", err)
	}
	signature, err := f.Keyring.SignCheckpoint(t.Context(), 1, []byte(checkpoint))
	if err != nil || !ed25519.Verify(first, []byte(checkpoint), signature) || ed25519.Verify(second, []byte(checkpoint), signature) {
		t.Fatal("the signature is not that of the generation", err)
	}
	for _, text := range []string{"", "hello\n", checkpoint[:len(checkpoint)-1], checkpoint + "\n", "a\n05\n" + checkpoint[14:], "a\n-1\n" + checkpoint[14:], "a\n5\nAAAA\n"} {
		if _, err := f.Keyring.SignCheckpoint(t.Context(), 1, []byte(text)); !errors.Is(err, keyring.ErrRequest) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
