package ttjs_test

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"joinery"
	"joinery/internal/fleet"
)

const (
	oneKey   = "8C17F4A2DD903B5E6E01C2B7A9554D30"
	otherKey = "8C17F4A2DD903B5E6E01C2B7A9554D31"
)

// A claim's KEK: taken where the operator allows it, in the Application Server's
// own namespace, for its binding alone.
func TestKEKOfAClaim(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	here := f.as(t, f.here)
	with := func(c *claimClient, label, key string) *claimClient {
		copied := *c
		copied.kek = &clientKEK{label, key}
		return &copied
	}
	d, token := f.device(t)
	refused := func(what string, c *claimClient, text string) {
		t.Helper()
		err := c.Claim(ctx, d.DevEUI, token)
		if in, ok := err.(userInternal); !ok || !strings.Contains(in.text, text) { //nolint:errorlint // as it came
			t.Errorf("%s: the user is told %v", what, err)
		}
		if err != nil && strings.Contains(strings.ToUpper(err.Error()), oneKey[:16]) {
			t.Errorf("%s: the key comes back", what)
		}
	}
	refused("not allowed", with(here, "default", oneKey), "no KEK is taken")
	if f.state(t, d).Binding != nil {
		t.Fatal("it was claimed without its KEK")
	}
	for _, p := range []*party{&f.here, &f.there} {
		p.ClaimKEKs = true
		p.Peer = must[joinery.Peer](t)(f.fleet.ChangePeer(ctx, operator, p.Peer, fleet.PeerConfirm{}))
	}
	for what, key := range map[string]string{
		"no digits": "not a key", "an odd one": oneKey[1:], "too short": oneKey[2:], "too long": strings.Repeat(oneKey, 3), "empty": "", "quoted": `\u0041` + oneKey[1:],
	} {
		refused(what, with(here, "default", key), "32, 48 or 64 hexadecimal digits")
	}
	refused("no label", with(here, "", oneKey), "label")

	wantUser(t, "claim", with(here, "default", strings.ToLower(oneKey)).Claim(ctx, d.DevEUI, token), nil)
	b := f.state(t, d).Binding
	kek, known := f.fleet.Directory().KEK(b.KEK)
	if !known || kek.Peer != f.here.ID || kek.Role != joinery.KEKForAS || kek.Label != "default" || !kek.Claimed || b.Policy != joinery.AppSKeyWrapped {
		t.Errorf("bound to %+v with %+v", b, kek)
	}
	wantUser(t, "again", with(here, "default", oneKey).Claim(ctx, d.DevEUI, token), nil)
	if again := f.state(t, d).Binding; again.Epoch != b.Epoch {
		t.Error("the same claim made another binding")
	}
	refused("another key", with(here, "default", otherKey), "another key")
	refused("a longer one", with(here, "default", oneKey+oneKey), "another key")
	if now := f.state(t, d).Binding; *now != *b {
		t.Errorf("a refused claim changed the binding: %+v", now)
	}

	// The same label of another Application Server is another key.
	e, token2 := f.device(t)
	wantUser(t, "another's", with(f.as(t, f.there), "default", otherKey+otherKey).Claim(ctx, e.DevEUI, token2), nil)
	if theirs := f.state(t, e).Binding; theirs.KEK == b.KEK || theirs.KEK == 0 {
		t.Errorf("bound to %+v", theirs)
	}
	// Without one, a claim lets the Application Server's own wrap, or none.
	wantUser(t, "without", here.Claim(ctx, d.DevEUI, token), nil)
	if now := f.state(t, d).Binding; now.KEK != 0 || now.Policy != joinery.AppSKeyByID {
		t.Errorf("bound to %+v", now)
	}
	// A KEK tells nothing to who has no token.
	wantUser(t, "wrong token", with(here, "default", otherKey).Claim(ctx, d.DevEUI, "AAAAAAAAAAAAA"), errUserDenied)

	f.findsNowhere(t, oneKey, otherKey)
}

// findsNowhere looks for keys in the log and in every KEK and audit row.
func (f *fixture) findsNowhere(t testing.TB, keys ...string) {
	t.Helper()
	text := f.log.String()
	keks := must[[]joinery.KEK](t)(f.db.KEKs(t.Context()))
	for _, k := range keks {
		text += string(k.Sealed) + k.Label
	}
	for _, e := range must[[]joinery.AuditEntry](t)(f.db.AuditEntries(t.Context(), 0, 1000)) {
		for _, v := range e.Detail {
			text += v + "\n"
		}
	}
	for _, key := range keys {
		raw := must[[]byte](t)(hex.DecodeString(key))
		for _, form := range []string{key, strings.ToLower(key), string(raw), base64.StdEncoding.EncodeToString(raw)} {
			if strings.Contains(text, form) {
				t.Error("a key is found")
			}
		}
	}
}
