package secret

import (
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// No way of printing or marshalling gives a byte of a key.
func TestNothingPrintsAKey(t *testing.T) {
	m := newMemory(t)
	key := randomBytes(16)
	k := newKey(t, m, key)
	c, err := m.Cipher(key)
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Key    Key
		Cipher Cipher
		k      Key
		c      Cipher
		p      *Key
	}
	h := holder{k, c, k, c, &k}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("", "k", k, "p", &k, "c", c, "h", h, "m", m)
	slog.New(slog.NewTextHandler(&log, nil)).Info("", "k", k, "p", &k, "c", c, "h", h, "m", m)
	texts := []string{log.String(), k.String(), k.GoString()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%08b"} {
		for _, v := range []any{k, &k, c, &c, h, &h, m, []Key{k}, map[string]Cipher{"": c}} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
	}
	decimal := fmt.Sprintf("%d", key)
	forms := []string{string(key), hex.EncodeToString(key), strings.ToUpper(hex.EncodeToString(key)),
		strings.Trim(decimal, "[]"), strings.Trim(fmt.Sprintf("%08b", key), "[]"), fmt.Sprintf("%#v", key)}
	for _, text := range texts {
		for _, form := range forms {
			if strings.Contains(text, form) {
				t.Fatalf("a key was printed among %d bytes", len(text))
			}
		}
	}
	for _, v := range []any{k, c, h, []Key{k}, map[string]Key{"": k}} {
		if _, err := json.Marshal(v); !errors.Is(err, ErrMarshal) {
			t.Errorf("json of %T: %v", v, err)
		}
	}
	if err := gob.NewEncoder(&log).Encode(k); !errors.Is(err, ErrMarshal) {
		t.Errorf("gob: %v", err)
	}
	if _, err := k.MarshalText(); !errors.Is(err, ErrMarshal) {
		t.Errorf("text: %v", err)
	}
}
