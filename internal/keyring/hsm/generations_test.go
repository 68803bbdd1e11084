package hsm_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"joinery/internal/ceremony"
	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/keyring/keyringtest"
)

// What is not as it must be is refused, whichever generation it is. The newest join
// KEK of the token is the second, and its only one.
func refusesGenerations(t *testing.T, opt hsm.Options) {
	refuse := func(name string, want error, text string) {
		t.Helper()
		token, err := hsm.Open(t.Context(), opt)
		if !errors.Is(err, want) || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			_ = token.Close()
		}
	}
	raw(t, opt, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) {
		with := func(label string, change func([]*pkcs11.Attribute), check func()) {
			t.Helper()
			h, err := p.GenerateKey(s, mech(pkcs11.CKM_AES_KEY_GEN), kekOf(label, change))
			if err != nil {
				t.Fatal(err)
			}
			check()
			if err := p.DestroyObject(s, h); err != nil {
				t.Fatal(err)
			}
		}
		none := func([]*pkcs11.Attribute) {}
		next := hsm.LabelJoinKEK + ".3"
		with(next, none, func() { refuse("a generation without template", hsm.ErrTemplate, "") })
		with(hsm.LabelJoinKEK, none, func() { refuse("an old generation without template", hsm.ErrTemplate, "") })
		with(hsm.LabelJoinKEK+".4", none, func() { refuse("a gap", hsm.ErrObject, next+" is not") })
		with(hsm.LabelJoinKEK+".2", none, func() { refuse("one twice", hsm.ErrObject, "there are 2 objects") })
		with(hsm.LabelJoinKEK+".03", none, func() { refuse("no number", hsm.ErrObject, "no generation") })
		with(hsm.LabelJoinKEK+"-of-others", none, func() { refuse("another's", nil, "") })
		readable := func(list []*pkcs11.Attribute) { set(list, pkcs11.CKA_EXTRACTABLE, true) }
		with(next, readable, func() { refuse("a generation that can leave", hsm.ErrObject, "not extractable") })
		// Keys that somebody knows: brought in, or read before they were hidden.
		known := append(kekOf(next, none), pkcs11.NewAttribute(pkcs11.CKA_VALUE, make([]byte, 32)), hsm.HiddenOnly())
		known = slices.DeleteFunc(known, func(a *pkcs11.Attribute) bool { return a.Type == pkcs11.CKA_VALUE_LEN })
		h, err := p.CreateObject(s, known)
		if err != nil {
			t.Fatal(err)
		}
		refuse("a generation of a known value", hsm.ErrObject, "not made in the token")
		if err := p.DestroyObject(s, h); err != nil {
			t.Fatal(err)
		}
		open := func(list []*pkcs11.Attribute) {
			set(list, pkcs11.CKA_EXTRACTABLE, true)
			set(list, pkcs11.CKA_SENSITIVE, false)
		}
		if h, err = p.GenerateKey(s, mech(pkcs11.CKM_AES_KEY_GEN), append(kekOf(next, open), hsm.HiddenOnly())); err != nil {
			t.Fatal(err)
		}
		hide := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false)}
		if err := p.SetAttributeValue(s, h, hide); err != nil {
			t.Fatal(err)
		}
		refuse("a generation that was read before it was hidden", hsm.ErrObject, "could be read there once")
		if err := p.DestroyObject(s, h); err != nil {
			t.Fatal(err)
		}
		refuseHalves(t, opt, p, s)
	})
	refuse("whole", nil, "")
}

// kekOf is a join KEK without template, of that label.
func kekOf(label string, change func([]*pkcs11.Attribute)) []*pkcs11.Attribute {
	list := hsm.UntemplatedKEK()
	for i, a := range list {
		switch a.Type {
		case pkcs11.CKA_LABEL:
			list[i] = pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)
		case pkcs11.CKA_ID:
			list[i] = pkcs11.NewAttribute(pkcs11.CKA_ID, []byte("kek "+label))
		}
	}
	change(list)
	return list
}

func set(list []*pkcs11.Attribute, typ uint, value bool) {
	for i, a := range list {
		if a.Type == typ {
			list[i] = pkcs11.NewAttribute(typ, value)
		}
	}
}

// refuseHalves: what a step left that was cut off is passed by and cleared away; what
// a server needs must be whole.
func refuseHalves(t *testing.T, opt hsm.Options, p *pkcs11.Ctx, s pkcs11.SessionHandle) {
	t.Helper()
	have, err := hsm.Find(p, s, pkcs11.CKO_PUBLIC_KEY, hsm.LabelTransport+".2")
	if err != nil {
		t.Fatal(err)
	}
	half := func(number string) pkcs11.ObjectHandle {
		h, err := p.CopyObject(s, have, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, hsm.LabelTransport+number)})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	older, newer := half(""), half(".3")
	token, err := hsm.Open(t.Context(), opt)
	if err != nil {
		t.Fatalf("halves at both ends: %v", err)
	}
	if n := len(token.Generations().Transport); n != 1 {
		t.Errorf("%d transport keys, with one that is whole", n)
	}
	if err := token.Close(); err != nil {
		t.Error(err)
	}
	err = hsm.Conduct(opt, func(o *hsm.Officer) error { return o.Retire(hsm.LabelTransport) })
	if err != nil {
		t.Error(err)
	}
	if _, err := p.GetAttributeValue(s, older, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil)}); err == nil {
		t.Error("half a pair that was being retired is there still")
	}
	if err := p.DestroyObject(s, newer); err != nil {
		t.Error(err)
	}
	if err := hsm.Conduct(opt, func(o *hsm.Officer) error { return o.Retire(hsm.LabelTransport) }); !errors.Is(err, hsm.ErrRetire) {
		t.Errorf("the only one: %v", err)
	}
}

// A login that is made again finds the generations that there were when the token was
// opened: whoever was told of them seals under them. What was retired is gone.
func opensTheSameAgain(t *testing.T, opt hsm.Options, key [32]byte) {
	fault := &hsm.Fault{}
	token, err := hsm.Open(t.Context(), hsm.Forgetful(opt, fault))
	if err != nil {
		t.Fatal(err)
	}
	k := keyring.New(token)
	t.Cleanup(func() { _ = k.Close() })
	f := keyringtest.Fixture{Keyring: k, Master: hsmtest.Master, MasterKey: key}
	ks := f.SealedKeySet(t, keyringtest.NewDevice(true))
	generation := func(number uint32) func(*hsm.Officer) error {
		return func(o *hsm.Officer) error {
			outcome, err := o.MakeGeneration(hsm.LabelJoinKEK, number, true)
			if err == nil && outcome != ceremony.WasMade {
				t.Errorf("generation %d: %s", number, outcome)
			}
			return err
		}
	}
	conduct := func(f func(*hsm.Officer) error) {
		t.Helper()
		if err := hsm.Conduct(opt, f); err != nil {
			t.Fatal(err)
		}
	}
	forget := func() {
		t.Helper()
		raw(t, opt, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) {
			if err := p.Logout(s); err != nil {
				t.Fatal(err)
			}
		})
		token.ForgetPause()
	}
	conduct(generation(3))
	if err := hsm.Conduct(opt, generation(5)); !errors.Is(err, hsm.ErrObject) {
		t.Errorf("a generation that does not follow: %v", err)
	}
	conduct(func(o *hsm.Officer) error {
		if outcome, err := o.MakeGeneration(hsm.LabelJoinKEK, 3, true); err != nil || outcome != ceremony.WasThere {
			t.Errorf("made twice: %s, %v", outcome, err)
		}
		if outcome, err := o.MakeGeneration(hsm.LabelJoinKEK, 4, false); err != nil || outcome != ceremony.Planned {
			t.Errorf("dry: %s, %v", outcome, err)
		}
		if outcome, err := o.Ensure(hsm.LabelJoinKEK, true); err != nil || outcome != ceremony.WasThere {
			t.Errorf("ensured: %s, %v", outcome, err)
		}
		return nil
	})
	forget()
	later := f.SealedKeySet(t, keyringtest.NewDevice(true))
	if g := token.Generations(); !slices.Equal(g.JoinKEK, []uint32{2}) || !g.Current(later.App) {
		t.Errorf("sealed under another generation than %v", g.JoinKEK)
	}
	if err := k.CheckKeySet(t.Context(), ks); err != nil {
		t.Error(err)
	}
	// The one that it was told of is gone: it seals under no other.
	conduct(func(o *hsm.Officer) error { return o.Retire(hsm.LabelJoinKEK) })
	forget()
	if err := k.CheckKeySet(context.Background(), ks); !errors.Is(err, keyring.ErrToken) || !errors.Is(err, hsm.ErrNoToken) {
		t.Errorf("without the newest that it knew: %v", err)
	}
}
