package rekey

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
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
// both need to know by what it proves who it is. One that was pinned before, by the
// same ReceiptKey, is the same again. CodeConflict where another one that is pinned
// has the name, a key, or proves itself by the same.
func (s *Service) Pin(ctx context.Context, caller joinery.Caller, j joinery.JoinServer) (joinery.JoinServer, error) {
	if err := caller.RequireOperator(); err != nil {
		return joinery.JoinServer{}, err
	}
	if err := checkPin(j); err != nil {
		return joinery.JoinServer{}, err
	}
	defer s.pins.forget()
	j.ID = joinery.NewJoinServerID()
	if j.ReceiptKey != nil {
		former, err := s.store.FormerJoinServer(ctx, j.ReceiptKey)
		if err != nil {
			return joinery.JoinServer{}, err
		}
		j.ID = cmp.Or(former, j.ID)
	}
	j.CreatedAt = s.now().UTC().Truncate(time.Millisecond)
	if j.ReceiptKey != nil { // what its removal left may be more than pinning it again ends
		apart := joinery.WithTerms(ctx, new(joinery.Terms)) // the caller's are those of the pin
		if err := s.store.EndUnpinned(apart, caller.Name, j.CreatedAt); err != nil {
			return joinery.JoinServer{}, err
		}
	}
	if err := s.store.AddJoinServer(ctx, j, s.pinEntry(caller, joinery.AuditJoinServerAdded, j)); err != nil {
		return joinery.JoinServer{}, err
	}
	s.hurry()
	return s.server(ctx, j.ID)
}

// ChangePin replaces what is pinned of a Join Server: its name, where it is reached, by
// what it proves who it is, its transport key and JoinEUIs. Its ReceiptKey, once there
// is one, says that it is the same, and stays. Orders that name another transport key,
// or none and so the one that was pinned until now, are handed over no more: their
// owners read why, and give them anew.
func (s *Service) ChangePin(ctx context.Context, caller joinery.Caller, j joinery.JoinServer) (joinery.JoinServer, error) {
	if err := caller.RequireOperator(); err != nil {
		return joinery.JoinServer{}, err
	}
	if err := checkPin(j); err != nil {
		return joinery.JoinServer{}, err
	}
	defer s.pins.forget()
	was, err := s.server(ctx, j.ID)
	if err != nil {
		return joinery.JoinServer{}, err
	}
	if err := s.store.ChangeJoinServer(ctx, j, kid(was), s.pinEntry(caller, joinery.AuditJoinServerChanged, j)); err != nil {
		return joinery.JoinServer{}, err
	}
	if err := s.settlePins(context.WithoutCancel(ctx), caller.Name); err != nil {
		return joinery.JoinServer{}, err
	}
	s.hurry()
	return s.server(ctx, j.ID)
}

// settlePins ends what pins that were removed or changed leave, by actor: in many
// transactions where it is much, so that joins need not wait for it. What of it a server
// that ends leaves is done when one runs again.
func (s *Service) settlePins(ctx context.Context, actor string) error {
	now := s.now().UTC().Truncate(time.Millisecond)
	if err := s.store.EndUnpinned(ctx, actor, now); err != nil {
		return err
	}
	list, err := s.store.JoinServers(ctx)
	for _, j := range list {
		if err == nil {
			err = s.store.RefuseRepinned(ctx, j.ID, kid(j), actor, now)
		}
	}
	return err
}

// pinEntry makes an audit entry about what is pinned.
func (s *Service) pinEntry(caller joinery.Caller, event joinery.AuditEvent, j joinery.JoinServer) joinery.AuditEntry {
	detail := map[string]string{"server": j.ID.String(), "name": j.Name, "transport_key": kid(j), "identity": identityText(j.Identity)}
	if key, err := seal.ParsePublicKeyDER(j.TransportKey); err == nil && key.SHA1() {
		detail["sha1"] = "yes"
	}
	if j.URL != "" {
		detail["url"] = j.URL
	}
	for _, r := range j.Ours {
		detail["may_hand_over_to"] = strings.TrimSpace(detail["may_hand_over_to"] + " " + r.First.String() + "-" + r.Last.String())
	}
	return s.entry(caller, event, joinery.Device{}, detail)
}

// identityText names by what a Join Server proves who it is.
func identityText(c joinery.Credential) string {
	ca := sha256.Sum256(c.CA)
	switch c.Kind {
	case joinery.CredentialSPKI:
		return "public key " + hex.EncodeToString(c.SPKI[:])
	case joinery.CredentialCA:
		return "CA " + hex.EncodeToString(ca[:])
	case joinery.CredentialCASAN:
		return "CA " + hex.EncodeToString(ca[:]) + " and name " + c.SAN
	}
	return "none"
}

func checkPin(j joinery.JoinServer) error {
	invalid := func(text string) error { return joinery.Errorf(joinery.CodeInvalid, "%s", text) }
	if j.Name == "" || len(j.Name) > 100 || strings.ContainsFunc(j.Name, unicode.IsControl) {
		return invalid("name: want 1 to 100 bytes without control characters")
	}
	if _, err := joinery.ParseJoinServerID(j.Name); err == nil {
		return invalid("name: it looks like the id of a Join Server; take another one")
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
	if (j.URL != "" || len(j.Ours) > 0) && j.ReceiptKey == nil {
		return invalid("receiptKey: a Join Server that is reached, or hands devices over, has to sign what it says")
	}
	// One that hands over by files alone shows no certificate.
	if err := checkIdentity(j.Identity, j.URL != ""); err != nil {
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
