package hsm_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/keyring/keyringtest"
)

// open opens the shared token with faults that a test sets later.
func open(tb testing.TB, f *hsm.Fault) (*hsm.Token, keyringtest.Fixture) {
	tb.Helper()
	opt := sharedOptions(tb)
	if f != nil {
		opt = hsm.Forgetful(opt, f)
	}
	token, err := hsm.Open(context.Background(), opt)
	if err != nil {
		tb.Fatal(err)
	}
	k := keyring.New(token)
	tb.Cleanup(func() {
		if err := k.Close(); err != nil {
			tb.Error(err)
		}
	})
	return token, keyringtest.Fixture{Keyring: k, Master: hsmtest.Master, MasterKey: shared.key}
}

// A token that was logged out, or whose sessions were closed, behind our back costs
// no join that begins after it; KEKs that were open are opened again.
func TestTokenThatForgot(t *testing.T) {
	opt := sharedOptions(t)
	_, f := open(t, nil)
	d := keyringtest.NewDevice(true)
	ks, nwk, app := f.DerivedKeySet(t, d.DevEUI, 1)
	d.Root10, d.Nwk, d.App = nwk, nwk, app
	r := request(t, f, ks, d, true)
	accept := func(when string) {
		t.Helper()
		begun := time.Now()
		answer, err := f.Keyring.Accept(context.Background(), r)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if _, _, err := d.Open(0xFF, 1, answer.PHYPayload); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("%s: the next join took %v", when, took)
		}
	}
	accept("before")
	for name, harm := range map[string]func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error{
		"logged out": func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error { return p.Logout(s) },
		"sessions closed": func(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
			info, err := p.GetSessionInfo(s)
			return errors.Join(err, p.CloseAllSessions(info.SlotID))
		},
	} {
		for range 3 {
			err := hsm.RawSession(opt, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) {
				if err := harm(p, s); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			accept(name)
			if err := f.Keyring.CheckKeySet(context.Background(), f.SealedKeySet(t, keyringtest.NewDevice(true))); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// One try to open the token again, then errors until a moment has passed.
func TestOneTryToOpenAgain(t *testing.T) {
	fault := &hsm.Fault{}
	token, f := open(t, fault)
	ctx := context.Background()
	join(t, f)
	gone := pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED)
	fault.Set(func(f *hsm.Fault) { f.Sign, f.Open, f.Sessions = gone, gone, 0 })
	for range 20 {
		if err := f.Keyring.Ready(ctx); !errors.Is(err, keyring.ErrToken) {
			t.Errorf("a token that is gone: %v", err)
		}
	}
	fault.Set(func(f *hsm.Fault) {
		if f.Sessions != 1 {
			t.Errorf("%d sessions were asked for; want 1 try", f.Sessions)
		}
		f.Sign, f.Open = nil, nil
	})
	if err := f.Keyring.Ready(ctx); !errors.Is(err, keyring.ErrToken) {
		t.Errorf("tried again at once: %v", err)
	}
	token.ForgetPause()
	if err := f.Keyring.Ready(ctx); err != nil {
		t.Errorf("a token that is back: %v", err)
	}
	join(t, f)
}

// A wrong PIN is tried once, when the token is opened and when it is opened again,
// and never after that.
func TestWrongPINIsTriedOnce(t *testing.T) {
	opt := hsmtest.SoftHSM(t)
	fault := &hsm.Fault{}
	wrong := hsm.Forgetful(opt, fault)
	wrong.PIN = []byte("0000-0000")
	if _, err := hsm.Open(context.Background(), wrong); !errors.Is(err, hsm.ErrPIN) {
		t.Errorf("a wrong PIN: %v", err)
	}
	if fault.Logins != 1 {
		t.Errorf("a wrong PIN was tried %d times", fault.Logins)
	}

	token, f := open(t, fault)
	fault.Set(func(f *hsm.Fault) {
		f.Sign, f.Login, f.Logins = pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN), pkcs11.Error(pkcs11.CKR_PIN_INCORRECT), 0
	})
	for range 20 {
		if err := f.Keyring.Ready(context.Background()); !errors.Is(err, keyring.ErrToken) || !errors.Is(err, hsm.ErrPIN) {
			t.Errorf("a PIN that was changed: %v", err)
		}
		token.ForgetPause()
	}
	if fault.Logins != 1 || !errors.Is(token.Ended(), hsm.ErrPIN) {
		t.Errorf("the PIN was tried %d times: %v", fault.Logins, token.Ended())
	}
}

// Objects are searched when a token is opened, and never for a join.
func TestNothingIsSearchedPerJoin(t *testing.T) {
	fault := &hsm.Fault{}
	_, f := open(t, fault)
	join(t, f)
	fault.Set(func(f *hsm.Fault) { f.Searches, f.Sessions, f.Logins = 0, 0, 0 })
	for range 10 {
		join(t, f)
	}
	fault.Set(func(f *hsm.Fault) {
		if f.Searches != 0 || f.Sessions != 0 || f.Logins != 0 {
			t.Errorf("joins made %d searches, %d sessions, %d logins", f.Searches, f.Sessions, f.Logins)
		}
	})
}

// Every session object that a verb makes is gone when it ends, whether it went well
// or not.
func TestVerbsLeaveNothingBehind(t *testing.T) {
	opt := sharedOptions(t)
	_, f := open(t, nil)
	d := keyringtest.NewDevice(true)
	ks := f.SealedKeySet(t, d)
	r := request(t, f, ks, d, true)
	forged := r
	forged.Frame = append([]byte(nil), r.Frame...)
	forged.Frame[20] ^= 1
	h, rows := f.Rows(t, d, 3)
	rows[1].Row.MAC[0] ^= 1
	work := func() {
		ctx := context.Background()
		for range 3 {
			if _, err := f.Keyring.Accept(ctx, r); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Keyring.Accept(ctx, forged); !errors.Is(err, keyring.ErrMIC) {
				t.Fatal(err)
			}
			if _, err := f.Keyring.AppSKey(ctx, ks, r.Activation, r.ASKEK); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Keyring.SealRoots(ctx, h, rows); err != nil {
				t.Fatal(err)
			}
		}
	}
	work()
	before := sessionObjects(t, opt)
	work()
	if after := sessionObjects(t, opt); after != before {
		t.Errorf("%d session objects before, %d after", before, after)
	}
}

// sessionObjects counts the session objects of this process.
func sessionObjects(tb testing.TB, opt hsm.Options) (n int) {
	tb.Helper()
	err := hsm.RawSession(opt, func(p *pkcs11.Ctx, s pkcs11.SessionHandle) {
		if err := p.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)}); err != nil {
			tb.Fatal(err)
		}
		list, _, err := p.FindObjects(s, 10000)
		if err != nil {
			tb.Fatal(err)
		}
		n = len(list)
		if err := p.FindObjectsFinal(s); err != nil {
			tb.Fatal(err)
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// A token whose results are wrong is believed in nothing, whatever it returns.
func TestResultsAreCompared(t *testing.T) {
	fault := &hsm.Fault{Lie: true}
	_, f := open(t, fault)
	expectLevels(t, f.Keyring, "derived ecb-v1: in-memory, not served (the token lacks HMAC-SHA-256)",
		"sealed: in-memory, not served (the token lacks HMAC-SHA-256)")
}
