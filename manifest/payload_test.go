package manifest

import (
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// readPayload reads what a signer of our own family signed, at whatever time.
func readPayload(text string) (Element, error) {
	p, err := parsePayload(encodeBase64URL([]byte(text)))
	if err != nil {
		return Element{}, err
	}
	e, err := (&Signer{}).element(p)
	e.Warning = ""
	return e, err
}

// FuzzPayload goes past the signature: a payload that passes can be written
// again and then says the same.
func FuzzPayload(f *testing.F) {
	f.Add(`{"version":1,"uniqueId":"0123aabbccddeeff27","provisioningTimestamp":"2020-01-02T03:04:05.678Z",` +
		`"manufacturer":{"organizationName":"a"},"distributer":{},"modelInfo":{"publicData":[` +
		`{"zone":"data","slot":9,"data":"cLPVftAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},` +
		`{"zone":"data","slot":10,"offset":0,"data":"MDAwNEEzMTAwMDFBQTkwQQ"}]}}`)
	f.Add(`{"version":2}`)
	f.Add(`{"version":3,"publicKeySet":{"keys":[{"kid":"1","kty":"EC","crv":"P-256","x":"","y":"","x5c":[""]}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := readPayload(text)
		if err != nil {
			return
		}
		written, err := payloadOf(e)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		b, err := json.Marshal(written)
		if err != nil {
			t.Fatal(err)
		}
		again, err := readPayload(string(b))
		if err != nil {
			t.Fatal(err)
		}
		e.ProvisionedAt = e.ProvisionedAt.Truncate(1e6) // written to the millisecond
		if diff := cmp.Diff(e, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}
