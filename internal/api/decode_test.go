package api

import (
	"regexp"
	"strings"
	"testing"

	"joinery/client"
)

// said is everything that a body which cannot be read is answered with.
var said = regexp.MustCompile(`^decode: (` + strings.Join([]string{
	`is not valid JSON(, at byte \d+)?`,
	`has a member twice in one object, at byte \d+`,
	`has a member that is not known here, at byte \d+; names are case-sensitive`,
	`has a value of the wrong form, at byte \d+`,
	`(EUI-64|NetID|DevAddr): invalid syntax: want \d+ hexadecimal digits(, got \d+ characters)?, at byte \d+`,
	`MACVersion: invalid syntax: want 1\.0\.0, 1\.0\.1, 1\.0\.2, 1\.0\.3, 1\.0\.4 or 1\.1\.0, at byte \d+`,
	`not a valid identifier: want "[a-z]+_" and 13 characters, at byte \d+`,
}, "|") + `)$`)

// FuzzDecode: whatever comes, the message is one of ours and repeats nothing.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `{"name":"x","name":"y"}`, `{"Name":1}`, `{"netIDs":["00112233445566778899AABBCCDDEEFF"]}`,
		`{"organisation":"secret"}`, `{"credentials":[{"ca":"!"}]}`, `{"keks":[{"seal":{"key":7}}]}`, "{\"name\":\"\xff\"}", `[[[[`, `{"name":"x"}{}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, v := range []any{new(any), new(client.NewPeer), new(client.ImportRows), new(client.NewClaim), new(client.NewAPIKey)} {
			if err := decodeJSON(body, v); err != nil && !said.MatchString(err.Error()) {
				t.Fatalf("%T: %q says %q", v, body, err)
			}
		}
	})
}
