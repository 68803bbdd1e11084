package api

import "testing"

// A null stands behind what opens or divides, and never behind a letter.
func TestMayHoldNull(t *testing.T) {
	for body, want := range map[string]bool{
		`{"a":null}`: true, `{"a": null}`: true, `[null]`: true, "[1,\nnull]": true, "[1,\tnull,2]": true, "{\"a\":\r\nnull}": true,
		`{"a":"nullnull","b":null}`: true, `{"annull":[1,null]}`: true,
		``: false, `{}`: false, `null`: false, `{"a":"xnull"}`: false, `{"null":1}`: false, `nullnullnull`: false, `{"a":"nul"}`: false, `nul`: false,
	} {
		if got := mayHoldNull([]byte(body)); got != want {
			t.Errorf("%s: %v", body, got)
		}
	}
}
