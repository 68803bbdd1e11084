package ttjs

import (
	"encoding/hex"
	"errors"
	"io"
	"net/http"

	"joinery"
	"joinery/internal/claim"
	"joinery/internal/seal"
	"joinery/internal/secret"
	"joinery/lorawan"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxClaim bounds the body of a claim, in bytes; clients send less than 500.
const maxClaim = 8 << 10

// claimBody is a claim as clients send it. Members that are not known here are
// passed over, as the original does: a client may say more than we take.
type claimBody struct {
	OwnerToken           string  `json:"ownerToken"`
	HomeNetID            string  `json:"homeNetID"`
	HomeNSID             *string `json:"homeNSID"`
	ASID                 string  `json:"asID"`
	Lock                 *bool   `json:"lock"`
	RegenerateOwnerToken *bool   `json:"regenerateOwnerToken"`
	KEK                  *struct {
		Label string  `json:"label"`
		Key   *hexKey `json:"key"`
	} `json:"kek"`
}

// readClaim reads the body of a claim. Whatever comes of it, no key is left in the
// clear: a KEK comes out sealed, and the text of the body is cleared.
func (s *Server) readClaim(r *http.Request) (c claim.NetworkClaim, err error) {
	text := make([]byte, maxClaim+1)
	defer clear(text)
	n, err := io.ReadFull(http.MaxBytesReader(nil, r.Body, maxClaim), text)
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong || n > maxClaim {
		return c, joinery.Errorf(joinery.CodeTooLarge, "the body is larger than a claim can be")
	}
	if err == nil || !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return c, joinery.Errorf(joinery.CodeInvalid, "the body could not be read")
	}
	secret.Do(func() { c, err = s.parseClaim(text[:n]) })
	return c, err
}

func (s *Server) parseClaim(text []byte) (c claim.NetworkClaim, err error) {
	var body claimBody
	keys := json.UnmarshalFromFunc(func(d *jsontext.Decoder, k *hexKey) error { return k.read(d, s.memory) })
	err = json.Unmarshal(text, &body, json.WithUnmarshalers(keys))
	if body.KEK != nil && body.KEK.Key != nil {
		defer body.KEK.Key.Wipe()
	}
	if err != nil { // its text may repeat what was sent
		if errors.Is(err, errHexKey) {
			return c, errHexKey
		}
		return c, joinery.Errorf(joinery.CodeInvalid, "Invalid request")
	}
	return s.claimOf(body)
}

// claimOf checks a body by itself.
func (s *Server) claimOf(body claimBody) (c claim.NetworkClaim, err error) {
	invalid := func(text string) (claim.NetworkClaim, error) {
		return claim.NetworkClaim{}, joinery.Errorf(joinery.CodeInvalid, "%s", text)
	}
	if c.NetID, err = lorawan.ParseNetID(body.HomeNetID); err != nil {
		return invalid("homeNetID: want 6 hexadecimal digits")
	}
	if body.HomeNSID != nil {
		if c.NSID, err = lorawan.ParseEUI64(*body.HomeNSID); err != nil {
			return invalid("homeNSID: want 16 hexadecimal digits")
		}
	}
	if body.ASID != "" {
		if err := joinery.CheckASID(body.ASID); err != nil {
			return c, err
		}
	}
	if body.RegenerateOwnerToken != nil && *body.RegenerateOwnerToken {
		return invalid("regenerateOwnerToken: only the owner of the device renews its token, and a claim here makes no owner")
	}
	c.OwnerToken, c.ASID = body.OwnerToken, body.ASID
	c.Lock = body.Lock != nil && *body.Lock
	if body.KEK == nil {
		return c, nil
	}
	if body.KEK.Key == nil {
		return invalid("kek: want a label and a key")
	}
	c.KEK, err = s.sealKEK(body.KEK.Label, body.KEK.Key.Key)
	return c, err
}

// sealKEK seals a KEK that came readable to the server's own transport key, as its
// sender should have done.
func (s *Server) sealKEK(label string, key secret.Key) (*claim.NetworkKEK, error) {
	var k claim.NetworkKEK
	transport := s.TransportKey()
	if transport.IsZero() {
		return nil, joinery.Errorf(joinery.CodeUnavailable, "the keyring is not open; try again later")
	}
	err := key.Use(func(key []byte) (err error) {
		k.Header, k.Sealed, err = seal.SealKEK(transport, string(joinery.KEKForAS), label, key)
		return err
	})
	return &k, err
}

// hexKey is a key in protected memory that came as hexadecimal digits.
type hexKey struct{ secret.Key }

var errHexKey = joinery.Errorf(joinery.CodeInvalid, "kek: key: want 32, 48 or 64 hexadecimal digits")

// read decodes a JSON string straight into m, without a Go string of it.
func (k *hexKey) read(d *jsontext.Decoder, m *secret.Memory) error {
	value, err := d.ReadValue() // lies in the text that is cleared
	if err != nil {
		return err
	}
	var key [32]byte
	defer clear(key[:])
	if len(value) < 2 || value[0] != '"' || len(value)-2 > hex.EncodedLen(len(key)) {
		return errHexKey
	}
	n, err := hex.Decode(key[:], value[1:len(value)-1])
	if err != nil || n != 16 && n != 24 && n != 32 {
		return errHexKey // the cause quotes a digit
	}
	k.Wipe() // of the same member before
	k.Key, err = m.Key(key[:n])
	return err
}
