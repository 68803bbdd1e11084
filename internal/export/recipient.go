package export

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"

	"joinery"
	"joinery/internal/exportfile"
)

// maxRecipients and maxName bound what an organisation registers.
const (
	maxRecipients = 50
	maxName       = 64
)

// NewRecipient is a recipient as somebody registers it.
type NewRecipient struct {
	Name string
	Kind joinery.RecipientKind
	Key  string // PEM, or a JSON Web Key
	// SHA1 says that the key is in a token which knows no other OAEP than that with
	// SHA-1.
	SHA1 bool
}

// AddRecipient registers a public key for the caller's organisation.
func (s *Service) AddRecipient(ctx context.Context, caller joinery.Caller, n NewRecipient) (joinery.Recipient, error) {
	org, err := s.acting(ctx, caller)
	if err != nil {
		return joinery.Recipient{}, err
	}
	if err := checkName(n.Name); err != nil {
		return joinery.Recipient{}, err
	}
	key, err := parseKey(n)
	if err != nil {
		return joinery.Recipient{}, err
	}
	r := joinery.Recipient{
		ID: joinery.NewRecipientID(), Org: org, Name: n.Name, Kind: n.Kind, Thumbprint: key.Thumbprint(), Key: string(key.MarshalPEM()), SHA1: key.SHA1(),
		AddedBy: caller.Name, CreatedAt: s.time(),
	}
	a := s.entry(caller, joinery.AuditRecipientAdded, org, map[string]string{
		"recipient": r.Thumbprint, "name": r.Name, "kind": string(r.Kind), "key": key.Kind(), "sha1": yesNo(r.SHA1),
	})
	return r, s.store.AddRecipient(ctx, r, maxRecipients, a)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func checkName(name string) error {
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	if name == "" || name != strings.TrimSpace(name) || utf8.RuneCountInString(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unprintable) {
		return joinery.Errorf(joinery.CodeInvalid, "name: want 1 to %d printable characters, without a space at either end", maxName)
	}
	return nil
}

func parseKey(n NewRecipient) (exportfile.Recipient, error) {
	key, err := exportfile.ParseRecipient([]byte(n.Key))
	if err != nil {
		return key, joinery.Errorf(joinery.CodeInvalid, "key: %s", err.Error())
	}
	switch n.Kind {
	case joinery.RecipientFile:
	case joinery.RecipientServer:
		if _, err := key.TransportKey(); err != nil {
			return key, joinery.Errorf(joinery.CodeInvalid, "key: the transport key of a Join Server is an RSA key; ask its operator for it, or that server with joinctl seal transport-key")
		}
	default:
		return key, joinery.Errorf(joinery.CodeInvalid, "kind: want file or join-server")
	}
	if n.SHA1 {
		if key.RSA() == nil {
			return key, joinery.Errorf(joinery.CodeInvalid, "sha1: that is about RSA keys alone")
		}
		key = key.WithSHA1()
	}
	return key, nil
}

// Recipients gives those of the caller's organisation, by name.
func (s *Service) Recipients(ctx context.Context, caller joinery.Caller) ([]joinery.Recipient, error) {
	org, err := s.acting(ctx, caller)
	if err != nil {
		return nil, err
	}
	return s.store.Recipients(ctx, org)
}

// RemoveRecipient takes a recipient away, and withdraws what is being exported to
// it.
func (s *Service) RemoveRecipient(ctx context.Context, caller joinery.Caller, id joinery.RecipientID) error {
	r, err := s.recipient(ctx, caller, id)
	if err != nil {
		return err
	}
	return s.store.RemoveRecipient(ctx, id, s.entry(caller, joinery.AuditRecipientRemoved, r.Org, map[string]string{"recipient": r.Thumbprint, "name": r.Name}))
}

// recipient finds one of the caller's that was not removed.
func (s *Service) recipient(ctx context.Context, caller joinery.Caller, id joinery.RecipientID) (joinery.Recipient, error) {
	org, err := s.acting(ctx, caller)
	if err != nil {
		return joinery.Recipient{}, err
	}
	r, err := s.store.Recipient(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && (r.Org != org || !r.RemovedAt.IsZero()) {
		return joinery.Recipient{}, notFound("recipient")
	}
	return r, err
}
