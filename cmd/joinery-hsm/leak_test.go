package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/keyring/worker"
	"joinery/internal/secret"
	"joinery/test/leak"
)

// syncBuffer is a log that another goroutine reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// At each level of custody, no root key and no session key is in memory of ours
// once its verb is done: neither the key nor what AES makes of it.
func TestNothingStaysInMemory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may read the memory of others")
	}
	t.Run("in-token", func(t *testing.T) {
		o, _, masterKey := token(t, "in-token")
		testMemory(t, o, masterKey, "derived ecb-v1: in-token", "sealed: in-token")
	})
	t.Run("below", func(t *testing.T) {
		opt := hsmtest.SoftHSM(t)
		opt.Module = without(t, opt.Module)
		o, _, masterKey := provisioned(t, opt, "in-memory")
		testMemory(t, o, masterKey, "derived ecb-v1: in-memory", "sealed: ecb-oracle")
	})
}

func testMemory(t *testing.T, o worker.Options, masterKey [32]byte, levels ...string) {
	t.Helper()
	var log syncBuffer
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	keys := start(t, o)
	for i, c := range keys.Custody() {
		if i < len(levels) && !strings.HasPrefix(c.String(), levels[i]) {
			t.Fatalf("custody: %v, want %v", keys.Custody(), levels)
		}
	}
	f := keyringtest.Fixture{Keyring: keys, Master: hsmtest.Master, MasterKey: masterKey}
	var secrets leak.Secrets
	secrets.PlantKey("master key", masterKey[:])
	secrets.PlantText("PIN", hsmtest.PIN)
	for n := range 10 {
		joinAll(t, f, &secrets, n)
	}
	m := regexp.MustCompile(`process=(\d+)`).FindStringSubmatch(log.String())
	pid, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	c, err := secrets.InProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v, erasing mode of the runtime: %v: %v", levels, secret.Erases(), c)
	t.Logf("of the token's library, which is a token of software, and not judged: %v", c.In(leak.Libraries()...))
	if hits := c.In(leak.Ours()...); len(hits) > 0 {
		t.Errorf("keys are in memory of ours: %v", hits)
	}
	places, err := leak.WithCanary(pid, masterKey[:], func() { c, err = secrets.InProcess(pid) })
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range places {
		if c.Hits[p]["master key, raw"] == 0 {
			t.Errorf("a master key in %s is not found", p)
		}
	}
	if !slices.Contains(places, leak.Program) {
		t.Errorf("a key could be put into %v only", places)
	}
}

// underived is the source of a PKCS #11 library that is SoftHSM's, but for
// C_DeriveKey, which it has not.
const underived = `
#include <dlfcn.h>
#include <stddef.h>
typedef unsigned long ck;
typedef struct { unsigned char version[2]; void *functions[68]; } list;
static list mine;
static ck refuse(void) { return 0x70; } /* CKR_MECHANISM_INVALID */
ck C_GetFunctionList(list **out) {
	void *library = dlopen(MODULE, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL) return 5;
	ck (*get)(list **) = (ck (*)(list **))dlsym(library, "C_GetFunctionList");
	list *theirs = NULL;
	if (get == NULL || get(&theirs) != 0) return 5;
	mine = *theirs;
	mine.functions[62] = (void *)refuse;
	*out = &mine;
	return 0;
}
`

// without gives a library in the place of module that derives nothing.
func without(t *testing.T, module string) string {
	t.Helper()
	dir := t.TempDir()
	source, library := filepath.Join(dir, "module.c"), filepath.Join(dir, "module.so")
	if err := os.WriteFile(source, []byte(underived), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("cc", "-shared", "-fPIC", "-DMODULE="+strconv.Quote(module), "-o", library, source, "-ldl").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return library
}

// joinAll lets devices of both origins join by 1.0.x and by 1.1 networks, and
// plants what keys they get.
func joinAll(t *testing.T, f keyringtest.Fixture, secrets *leak.Secrets, n int) {
	t.Helper()
	kek := bytes.Repeat([]byte{byte(n), 0x5C}, 8)
	for _, sealed := range []bool{false, true} {
		for _, optNeg := range []bool{false, true} {
			d := keyringtest.NewDevice(true)
			var ks joinery.KeySet
			if sealed {
				ks = f.SealedKeySet(t, d)
			} else {
				var nwk, app [16]byte
				ks, nwk, app = f.DerivedKeySet(t, d.DevEUI, 1)
				d.Root10, d.Nwk, d.App = nwk, nwk, app
			}
			a := joinery.Activation{
				ID: 1, KeySet: ks.ID, Type: joinery.JoinTypeJoin, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, OptNeg: optNeg,
				Root: ks.Root10, Count: uint16(n), JoinNonce: 1, Policy: joinery.AppSKeyWrapped,
			}
			if optNeg {
				a.DLSettings = 0x80
			}
			answer, err := f.Keyring.Accept(t.Context(), keyring.AcceptRequest{
				KeySet: ks, Frame: d.JoinRequest(uint16(n)), Activation: a,
				NSKEK: f.KEK(t, kek, joinery.KEKForNS, "ns"), ASKEK: f.KEK(t, kek, joinery.KEKForAS, "as"),
			})
			if err != nil {
				t.Fatal(err)
			}
			_, s, err := d.Open(0xFF, uint16(n), answer.PHYPayload)
			if err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf(" (sealed %v, OptNeg %v)", sealed, optNeg)
			for what, key := range map[string][16]byte{
				"NwkKey": d.Nwk, "AppKey": d.App, "NwkSKey": s.NwkSKey, "FNwkSIntKey": s.FNwkSIntKey,
				"SNwkSIntKey": s.SNwkSIntKey, "NwkSEncKey": s.NwkSEncKey, "AppSKey": s.AppSKey,
			} {
				if key != [16]byte{} {
					secrets.PlantKey(what+name, key[:])
				}
			}
		}
	}
}
