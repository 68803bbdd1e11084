package soft

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// dumpPlan is what the child process of TestKeysAreInNoDump is told. The needles
// are masked, so that the plan itself is not what is found.
type dumpPlan struct {
	KeyFile, Identity string
	Master            string
	Frame             []byte
	DevEUI            lorawan.EUI64
	KEKHeader         seal.Header
	KEK               seal.SealedKEK
	Needles           map[string][]byte
}

const (
	dumpPlanVar = "JOINERY_DUMP_PLAN"
	mask        = 0xA5
)

// After a server opened its keys and served a join, a core dump of it would hold
// none of them, nor the device's root keys: not raw, not as text. A child process
// does the work and then reads all of its own memory that a dump would contain.
func TestKeysAreInNoDump(t *testing.T) {
	if plan := os.Getenv(dumpPlanVar); plan != "" {
		dumpChild(t, plan)
		return
	}
	plan := newDumpPlan(t)
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, filepath.Join(t.TempDir(), "plan"), string(text), 0o600)
	child := exec.Command(os.Args[0], "-test.run=^TestKeysAreInNoDump$", "-test.v")
	child.Env = append(os.Environ(), dumpPlanVar+"="+path)
	out, err := child.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("searched ")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// newDumpPlan makes a key file with a master key, a frame of a device of it, and
// the needles: the secrets raw, in hexadecimal digits of both cases and in
// base64.
func newDumpPlan(t *testing.T) dumpPlan {
	t.Helper()
	dir := t.TempDir()
	plan := dumpPlan{
		KeyFile: filepath.Join(dir, "keys"), Identity: filepath.Join(dir, "identity"), Master: "maker",
		DevEUI: lorawan.EUI64{1, 2, 3, 4, 5, 6, 7, 8}, Needles: map[string][]byte{},
	}
	if err := CreateIdentity(plan.Identity); err != nil {
		t.Fatal(err)
	}
	made, err := template()
	if err != nil {
		t.Fatal(err)
	}
	server := made[0]
	master, err := newMaster(plan.Master)
	if err != nil {
		t.Fatal(err)
	}
	server.Masters = []storedMaster{master}
	l, err := Unlock{IdentityFile: plan.Identity}.read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := createKeyFile(plan.KeyFile, l, &server); err != nil {
		t.Fatal(err)
	}
	root := &key{raw: lwcrypto.RootKey(lwcrypto.PurposeNwkKey, 1, plan.DevEUI)}
	if err := encryptWith(master.Key, &root.raw); err != nil {
		t.Fatal(err)
	}
	f := lorawan.JoinRequest{DevEUI: plan.DevEUI, DevNonce: 1}
	mac, err := root.CMAC(f.AppendUnsigned(nil))
	if err != nil {
		t.Fatal(err)
	}
	f.MIC = lwcrypto.MIC(mac)
	plan.Frame = f.Append(nil)

	kek := randomKey()
	public, err := seal.ParsePublicKeyDER(server.TransportPublic)
	if err != nil {
		t.Fatal(err)
	}
	if plan.KEKHeader, plan.KEK, err = seal.SealKEK(public, "ns", "ns", kek); err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string][]byte{
		"master key": master.Key, "join KEK": server.JoinKEK, "storage KEK": server.StorageKEK,
		"row-MAC key": server.RowMAC, "owner-token key": server.OwnerTokens, "peer KEK": kek, "root key": root.raw[:],
	} {
		plan.Needles[name] = masked(secret)
		plan.Needles[name+", hexadecimal"] = masked([]byte(hex.EncodeToString(secret)))
		plan.Needles[name+", HEXADECIMAL"] = masked([]byte(strings.ToUpper(hex.EncodeToString(secret))))
		// Without its last group, so that it is found within longer text, too.
		plan.Needles[name+", base64"] = masked([]byte(base64.StdEncoding.EncodeToString(secret)[:len(secret)/3*4]))
	}
	return plan
}

func encryptWith(master []byte, block *[16]byte) error {
	c, err := aes.NewCipher(master)
	if err != nil {
		return err
	}
	c.Encrypt(block[:], block[:])
	return nil
}

func masked(b []byte) []byte {
	m := bytes.Clone(b)
	for i := range m {
		m[i] ^= mask
	}
	return m
}

// dumpChild serves a join and searches its own memory.
func dumpChild(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var plan dumpPlan
	if err := json.Unmarshal(text, &plan); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	token, err := Open(ctx, Options{plan.KeyFile, Unlock{IdentityFile: plan.Identity}})
	if err != nil {
		t.Fatal(err)
	}
	k := keyring.New(token)
	kek := joinery.KEK{ID: 1, Role: joinery.KEKForNS, Version: 1, Label: "ns"}
	if kek.Sealed, err = k.SealKEK(ctx, plan.KEKHeader, plan.KEK, kek.Peer, kek.Version); err != nil {
		t.Fatal(err)
	}
	ks := joinery.KeySet{ID: 1, DevEUI: plan.DevEUI, Origin: joinery.OriginDerived, Master: plan.Master, Generation: 1, Root10: joinery.NwkKey}
	for _, optNeg := range []bool{false, true} {
		a := joinery.Activation{
			KeySet: 1, Type: joinery.JoinTypeJoin, DevEUI: plan.DevEUI, OptNeg: optNeg, Root: joinery.NwkKey,
			Count: 1, JoinNonce: 1, Policy: joinery.AppSKeyByID,
		}
		if _, err := k.Accept(ctx, keyring.AcceptRequest{KeySet: ks, Frame: plan.Frame, Activation: a, NSKEK: kek}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.OwnerToken(ctx, 1, 1); err != nil {
		t.Fatal(err)
	}
	runtime.GC()

	searched, found := searchMemory(t, plan.Needles)
	fmt.Printf("searched %d MiB\n", searched>>20)
	for _, name := range found {
		t.Errorf("%s is in memory that a core dump would hold", name)
	}
	// The search finds what is there.
	canary := randomKey()
	if _, found := searchMemory(t, map[string][]byte{"canary": masked(canary)}); len(found) != 1 {
		t.Error("the search does not even find a canary")
	}
	runtime.KeepAlive(canary)
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}

// searchMemory searches everything that this process may write to and that a
// core dump would hold. Needles are masked.
func searchMemory(t *testing.T, needles map[string][]byte) (searched int, found []string) {
	t.Helper()
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	const chunk, overlap = 1 << 20, 256
	buf := make([]byte, chunk+overlap)
	masks := bytes.Repeat([]byte{mask}, len(buf))
	for _, r := range dumpedRegions(t) {
		for at := r[0]; at < r[1]; at += chunk {
			n := min(int(r[1]-at), len(buf))
			if _, err := mem.ReadAt(buf[:n], int64(at)); err != nil {
				break // gone meanwhile, or never readable
			}
			searched += min(n, chunk)
			subtle.XORBytes(buf[:n], buf[:n], masks)
			for name, needle := range needles {
				if bytes.Contains(buf[:n], needle) && !isOwn(needle, buf[:n], at, buf) {
					found = append(found, name)
				}
			}
		}
	}
	slices.Sort(found)
	return searched, slices.Compact(found)
}

// isOwn tells whether the only place of needle is the search's own buffer, which
// is masked while it is searched and holds the unmasked form of nothing.
func isOwn(needle, have []byte, at uintptr, buf []byte) bool {
	place := at + uintptr(bytes.Index(have, needle))
	start := uintptr(unsafe.Pointer(unsafe.SliceData(buf)))
	return place >= start && place < start+uintptr(len(buf))
}

// dumpedRegions lists what is writable and not excluded from core dumps (flag
// dd).
func dumpedRegions(t *testing.T) (regions [][2]uintptr) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var from, to uintptr
	var access string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var begin, end uintptr
		var rights string
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s", &begin, &end, &rights); n == 3 {
			from, to, access = begin, end, rights
			continue
		}
		if flags, ok := strings.CutPrefix(lines.Text(), "VmFlags:"); ok && strings.HasPrefix(access, "rw") && !slices.Contains(strings.Fields(flags), "dd") {
			regions = append(regions, [2]uintptr{from, to})
		}
	}
	if err := errors.Join(lines.Err()); err != nil || len(regions) < 3 {
		t.Fatalf("%d regions of memory: %v", len(regions), err)
	}
	return regions
}
