package hsm_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"joinery/internal/keyring/hsm"
)

// A PIN does not come out by printing, logging or marshalling.
func TestOptionsHideThePIN(t *testing.T) {
	const pin = "7391-2846"
	opt := hsm.Options{Module: "module", Token: "token", PIN: []byte(pin)}
	numbers := strings.Trim(fmt.Sprintf("%d", opt.PIN), "[]")
	shows := func(how, text string) {
		t.Helper()
		if strings.Contains(text, pin) || strings.Contains(text, numbers) || strings.Contains(text, fmt.Sprintf("%x", pin)) {
			t.Errorf("%s shows the PIN: %s", how, text)
		}
	}
	for _, v := range []any{opt, &opt, []hsm.Options{opt}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			shows(verb, fmt.Sprintf(verb, v))
		}
		if _, err := json.Marshal(v); err == nil {
			t.Errorf("%T was marshalled", v)
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		shows("a log", log.String())
	}
}
