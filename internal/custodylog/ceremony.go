package custodylog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"joinery"
	"joinery/internal/ceremony"
)

// Ceremony is a report of a ceremony of keys as it stands in the log.
type Ceremony struct {
	Name   string
	SHA256 string // of the report, hexadecimal
	Signer string // fingerprint of the audit key that signed it
}

// EnterCeremony puts the signed report of a ceremony into the log: its hash, what
// was made and changed, and who was there. key is the fingerprint of the audit key
// as the participants wrote it down; a report that another key signed is refused.
// It is the operator's.
func (s *Service) EnterCeremony(ctx context.Context, caller joinery.Caller, report []byte, key string) (c Ceremony, err error) {
	if err := caller.RequireOperator(); err != nil {
		return c, err
	}
	r, signer, err := ceremony.Verify(report)
	if errors.Is(err, ceremony.ErrReport) {
		return c, joinery.WrapError(joinery.CodeInvalid, err, "report: want one of joinery ceremony run, as it was signed")
	}
	if err != nil {
		return c, err
	}
	if !strings.EqualFold(key, signer) {
		return c, joinery.Errorf(joinery.CodeInvalid, "key: the report is signed by another key, of fingerprint %s", signer)
	}
	sum := sha256.Sum256(report)
	c = Ceremony{Name: r.Ceremony, SHA256: hex.EncodeToString(sum[:]), Signer: signer}
	return c, s.store.Record(ctx, joinery.AuditEntry{
		At: s.opt.Now().UTC().Truncate(time.Millisecond), Event: joinery.AuditCeremonyReported, Actor: caller.Name, Org: caller.Org, Detail: ceremonyDetail(c, r),
	})
}

// ceremonyDetail says what a report says, in short. Participants are people: the
// entry can be erased.
func ceremonyDetail(c Ceremony, r ceremony.Report) map[string]string {
	var people, masters, rotated, tokens []string
	for _, p := range r.Participants {
		people = append(people, p.Name+" ("+p.Role+")")
	}
	for _, m := range r.Masters {
		if !m.Found {
			masters = append(masters, m.Name+" "+m.Profile+" "+m.KCV+" "+m.Origin)
		}
	}
	for _, k := range r.Rotated {
		rotated = append(rotated, k.Label)
	}
	for _, t := range r.Tokens {
		tokens = append(tokens, t.Label+" "+t.Serial)
	}
	d := map[string]string{
		"ceremony": c.Name, "report": c.SHA256, "signer": c.Signer, "plan": r.Plan,
		"started": r.Started.UTC().Format(time.RFC3339), "finished": r.Finished.UTC().Format(time.RFC3339),
	}
	for name, list := range map[string][]string{"participants": people, "masters": masters, "rotated": rotated, "tokens": tokens} {
		if len(list) > 0 {
			d[name] = strings.Join(list, ", ")
		}
	}
	return d
}
