package rekey

import (
	"bytes"
	"context"
	"crypto/x509"
	"net/url"
	"strings"
	"time"
	"unicode"

	"joinery"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// maxRanges bounds the JoinEUI ranges of a pinned Join Server.
const maxRanges = 64

// Pin pins a Join Server. Keys are DER; ReceiptKey may be nil. With a URL orders
// are handed over there, and with ranges of ours it may hand devices over to here;
// both need to know by what it proves who it is.
func (s *Service) Pin(ctx context.Context, caller joinery.Caller, j joinery.JoinServer) (joinery.JoinServer, error) {
	if err := caller.RequireOperator(); err != nil {
		return joinery.JoinServer{}, err
	}
	if err := checkPin(j); err != nil {
		return joinery.JoinServer{}, err
	}
	others, err := s.store.JoinServers(ctx)
	if err != nil {
		return joinery.JoinServer{}, err
	}
	for _, o := range others {
		if o.Identity.Kind != "" && o.Identity.Kind == j.Identity.Kind && o.Identity.SPKI == j.Identity.SPKI && o.Identity.SAN == j.Identity.SAN && bytes.Equal(o.Identity.CA, j.Identity.CA) {
			return joinery.JoinServer{}, joinery.Errorf(joinery.CodeConflict, "identity: %s proves itself by the same; each Join Server needs its own", o.Name)
		}
	}
	j.ID, j.Cursor, j.CreatedAt = joinery.NewJoinServerID(), 0, s.now().UTC().Truncate(time.Millisecond)
	detail := map[string]string{"server": j.ID.String(), "name": j.Name}
	if j.URL != "" {
		detail["url"] = j.URL
	}
	for _, r := range j.Ours {
		detail["may_hand_over_to"] = strings.TrimSpace(detail["may_hand_over_to"] + " " + r.First.String() + "-" + r.Last.String())
	}
	return j, s.store.AddJoinServer(ctx, j, s.entry(caller, joinery.AuditJoinServerAdded, joinery.Device{}, detail))
}

func checkPin(j joinery.JoinServer) error {
	invalid := func(text string) error { return joinery.Errorf(joinery.CodeInvalid, "%s", text) }
	if j.Name == "" || len(j.Name) > 100 || strings.ContainsFunc(j.Name, unicode.IsControl) {
		return invalid("name: want 1 to 100 bytes without control characters")
	}
	if _, err := seal.ParsePublicKeyDER(j.TransportKey); err != nil {
		return invalid("transportKey: not a public key to which keys can be sealed")
	}
	if j.ReceiptKey != nil {
		if _, err := x509.ParsePKIXPublicKey(j.ReceiptKey); err != nil {
			return invalid("receiptKey: not a public key")
		}
	}
	if j.URL != "" && !isOrigin(j.URL) {
		return invalid("url: want https://HOST or https://HOST:PORT, and a path at most")
	}
	reached := j.URL != "" || len(j.Ours) > 0
	if reached && j.ReceiptKey == nil {
		return invalid("receiptKey: a Join Server that is reached, or calls, has to sign what it says")
	}
	if err := checkIdentity(j.Identity, reached); err != nil {
		return err
	}
	return checkRanges(j.Theirs, j.Ours)
}

// isOrigin tells whether a Join Server can be reached by text.
func isOrigin(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" && len(text) <= 500
}

func checkRanges(lists ...[]joinery.EUIRange) error {
	for _, list := range lists {
		if len(list) > maxRanges {
			return joinery.Errorf(joinery.CodeInvalid, "too many JoinEUI ranges")
		}
		for _, r := range list {
			if r.First.Uint64() > r.Last.Uint64() {
				return joinery.Errorf(joinery.CodeInvalid, "a JoinEUI range ends before it begins")
			}
		}
	}
	return nil
}

// checkIdentity checks by what a Join Server proves who it is.
func checkIdentity(c joinery.Credential, needed bool) error {
	invalid := func(text string) error { return joinery.Errorf(joinery.CodeInvalid, "identity: %s", text) }
	pinned := c.SPKI != [32]byte{}
	switch {
	case c.Kind == "" && !needed && !pinned && len(c.CA) == 0 && c.SAN == "":
		return nil
	case c.Kind == joinery.CredentialSPKI && pinned && len(c.CA) == 0 && c.SAN == "":
		return nil
	case (c.Kind == joinery.CredentialCA && c.SAN == "" || c.Kind == joinery.CredentialCASAN && c.SAN != "") && !pinned:
	default:
		return invalid("want the SHA-256 of its certificate's SubjectPublicKeyInfo, or a CA, and one name where others have certificates of that CA")
	}
	ca, err := x509.ParseCertificate(c.CA)
	if err != nil || !ca.BasicConstraintsValid || !ca.IsCA {
		return invalid("not a certificate of a CA")
	}
	if len(c.SAN) > 253 || strings.ContainsAny(c.SAN, "* \t\r\n") {
		return invalid("the name is one DNS name or one URI, without wildcards")
	}
	return nil
}

func within(list []joinery.EUIRange, e lorawan.EUI64) bool {
	for _, r := range list {
		if r.Contains(e) {
			return true
		}
	}
	return false
}
