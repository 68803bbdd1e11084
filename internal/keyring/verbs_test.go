package keyring_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"joinery/internal/keyring"
)

// A key in the clear must not come out by printing, logging or marshalling.
func TestEnvelopeHidesItsKey(t *testing.T) {
	key := make([]byte, 16)
	rand.Read(key)
	e := keyring.Envelope{AESKey: key}
	forms := []string{hex.EncodeToString(key), base64.StdEncoding.EncodeToString(key), string(key), strings.Trim(fmt.Sprintf("%d", key), "[]")}
	shows := func(how, text string) {
		t.Helper()
		for _, form := range forms {
			if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
				t.Errorf("%s shows the key", how)
			}
		}
	}
	for _, v := range []any{e, &e, keyring.Answer{AppSKey: e}, &keyring.Answer{AppSKey: e}, []keyring.Envelope{e}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%o", "%c"} {
			shows(fmt.Sprintf("%s of %T", verb, v), fmt.Sprintf(verb, v))
		}
		if _, err := json.Marshal(v); err == nil {
			t.Errorf("%T was marshalled", v)
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		shows(fmt.Sprintf("a log of %T", v), log.String())
	}
}
