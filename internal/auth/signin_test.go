package auth

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"joinery"
)

func TestLimitsOfSigningIn(t *testing.T) {
	at := &clock{time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	l := newLimiter(at.now)
	tries := func(from string, n int) (ok int) {
		for range n {
			if l.allow(netip.MustParseAddr(from)) {
				ok++
			}
		}
		return ok
	}
	if got := tries("192.0.2.1", 100); got != perAddressBurst {
		t.Errorf("%d tries of one address", got)
	}
	if got := tries("::ffff:192.0.2.1", 1); got != 0 {
		t.Error("the same address in other words has its own bound")
	}
	if got := tries("2001:db8::1", 100) + tries("2001:db8::2", 100); got != perAddressBurst {
		t.Errorf("%d tries of one network", got)
	}
	if got := tries("2001:db8:0:1::1", 10); got != 10 {
		t.Errorf("another network: %d of 10", got)
	}
	at.at = at.at.Add(2 * time.Second)
	if got := tries("192.0.2.1", 100); got != 2*perAddress {
		t.Errorf("%d tries after two seconds", got)
	}
	// Behind a proxy everybody comes from here: the bound of all stands.
	at.at = at.at.Add(time.Hour)
	if got := tries("127.0.0.1", 1000); got != ofAllBurst {
		t.Errorf("%d tries by a proxy", got)
	}
	at.at = at.at.Add(time.Hour)
	for i := range maxAddresses + 500 {
		l.of(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), at.at)
	}
	if len(l.addrs) > maxAddresses {
		t.Errorf("%d addresses are remembered", len(l.addrs))
	}
	if !l.allow(netip.Addr{}) {
		t.Error("who has no address is refused")
	}
}

func TestCodesOfPrograms(t *testing.T) {
	form, seen := regexp.MustCompile("^["+codeLetters+"]{4}-["+codeLetters+"]{4}$"), map[string]bool{}
	letters := map[rune]int{}
	for range 2000 {
		code := newCode()
		if !form.MatchString(code) || seen[code] {
			t.Fatalf("code %q", code)
		}
		seen[code] = true
		for _, r := range code {
			letters[r]++
		}
	}
	for _, r := range codeLetters {
		if n := letters[r]; n < 600 || n > 1000 { // 800 are expected, with a deviation of 28
			t.Errorf("%c came %d times in 16000 letters", r, n)
		}
	}
}

func TestBrowserSecrets(t *testing.T) {
	a, b := Browser{1}, Browser{2}
	all := map[string]bool{}
	for _, x := range []Browser{a, b} {
		for _, what := range []string{"state", "nonce", "verifier"} {
			text := x.derive(what)
			if len(text) != 43 || all[text] { // RFC 7636 §4.1: a verifier has 43 characters at least
				t.Errorf("%s: %q", what, text)
			}
			all[text] = true
		}
	}
}

// Secrets of configuration and credentials do not print.
func TestNothingPrintsASecret(t *testing.T) {
	p := NewProvider("https://id.example.com", "joinery", "hidden", nil)
	if text := fmt.Sprintf("%v %+v %#v %s", p, p, p, p); strings.Contains(text, "hidden") {
		t.Errorf("%s", text)
	}
	for _, kind := range []credentialKind{keyText, sessionText, invitationText, programText} {
		c := newCredential(kind, int64(joinery.NewSessionID()))
		secret := c.text()[len(kind)+idLen+1:]
		if text := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(text, secret[:20]) {
			t.Errorf("%s", text)
		}
		for _, other := range []credentialKind{keyText, sessionText, invitationText, programText} {
			if _, ok := parseCredential(other, c.text()); ok != (other == kind) {
				t.Errorf("%s reads as %s: %v", kind, other, ok)
			}
		}
	}
}

func TestNamesOfPeople(t *testing.T) {
	for _, c := range []struct{ name, email, want string }{
		{"Ann Smith", "ann@example.com", "Ann Smith"}, {"", "ann@example.com", "ann@example.com"},
		{"a\nb", "ann@example.com", "ann@example.com"}, {" ", "", ""}, {strings.Repeat("n", 200), "x@y", "x@y"},
	} {
		if got := personName(c.name, c.email); got != c.want {
			t.Errorf("%q, %q: %q", c.name, c.email, got)
		}
	}
	if got, err := checkEmail("Ann@Example.COM"); err != nil || got != "ann@example.com" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestActFor(t *testing.T) {
	a, b, server := joinery.NewOrgID(), joinery.NewOrgID(), joinery.NewOrgID()
	in := func(org joinery.OrgID, role joinery.Role, kinds ...joinery.OrgKind) joinery.Membership {
		return joinery.Membership{Org: org, Role: role, Kinds: kinds, Operator: org == server}
	}
	owner := in(a, joinery.RoleAdmin, joinery.KindOwner)
	network := in(b, joinery.RoleMember, joinery.KindNetworkOperator)
	auditor := in(server, joinery.RoleViewer, joinery.KindServerOperator)
	for _, c := range []struct {
		name     string
		places   []joinery.Membership
		org      joinery.OrgID
		wantOrg  joinery.OrgID
		operator bool
		has, not joinery.Right
		code     joinery.Code
	}{
		{"the only place", []joinery.Membership{owner}, 0, a, false, joinery.RightDevicesOwn, joinery.RightDevicesImport, ""},
		{"none of two", []joinery.Membership{owner, network}, 0, 0, false, "", joinery.RightDevicesRead, ""},
		{"one of two", []joinery.Membership{owner, network}, b, b, false, joinery.RightDevicesRead, joinery.RightDevicesOwn, ""},
		{"another's", []joinery.Membership{owner}, b, 0, false, "", joinery.RightDevicesRead, joinery.CodeForbidden},
		{"no place", nil, 0, 0, false, "", joinery.RightDevicesRead, ""},
		{"no place, one named", nil, a, 0, false, "", joinery.RightDevicesRead, joinery.CodeForbidden},
		{"an operator who only looks", []joinery.Membership{auditor}, 0, 0, true, joinery.RightAuditRead, joinery.RightServerWrite, ""},
		{"the same for anybody's", []joinery.Membership{auditor}, b, b, true, joinery.RightDevicesRead, joinery.RightDevicesOwn, ""},
		{"who looks only, as a member of their own", []joinery.Membership{auditor, owner}, a, a, false, joinery.RightDevicesOwn, joinery.RightServerWrite, ""},
		{"an operator for their own", []joinery.Membership{in(server, joinery.RoleAdmin, joinery.KindServerOperator), owner}, a, a, true, joinery.RightServerWrite, "", ""},
		{"the same for none", []joinery.Membership{owner, auditor}, 0, 0, true, joinery.RightAuditRead, joinery.RightDevicesOwn, ""},
	} {
		got, err := actFor(c.places, c.org)
		if joinery.CodeOf(err) != c.code || got.Org != c.wantOrg || got.Operator != c.operator || c.has != "" && !got.May(c.has) || c.not != "" && got.May(c.not) {
			t.Errorf("%s: %+v (%s), %v", c.name, got, got.Rights, err)
		}
	}
}
