package soft_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"joinery"
	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/keyring/soft"
	"joinery/internal/secret"
	"joinery/lorawan"
	"joinery/test/leak"
)

// custodyPlan is what the child of TestCustodianForgets is told: files, public keys,
// and what is in a database.
type custodyPlan struct {
	Options   soft.CustodianOptions
	RSA, P256 []byte // recipients
	Sets      []custodySet
}

// custodySet is what a custody process gets of a key set.
type custodySet struct {
	ID                    uint64
	DevEUI                lorawan.EUI64
	Origin, Root10, Rekey uint8
	Master                string
	Generation            uint32
	Serial                [joinery.SerialLen]byte
	Steps                 []lorawan.Rekey
	Nwk, App              []byte // custody blobs
}

func newCustodySet(k joinery.KeySet) custodySet {
	return custodySet{
		uint64(k.ID), k.DevEUI, uint8(k.Origin), uint8(k.Root10), uint8(k.Rekey), k.Master, k.Generation, k.Serial, k.Steps, k.Nwk.Custody, k.App.Custody,
	}
}

func (s custodySet) keySet() joinery.KeySet {
	return joinery.KeySet{
		ID: joinery.KeySetID(s.ID), DevEUI: s.DevEUI, Origin: joinery.Origin(s.Origin), Root10: joinery.RootKey(s.Root10), Rekey: joinery.RekeyProfile(s.Rekey),
		Master: s.Master, Generation: s.Generation, Serial: s.Serial, Steps: s.Steps,
		Nwk: joinery.SealedRoot{Custody: s.Nwk}, App: joinery.SealedRoot{Custody: s.App},
	}
}

const custodyPlanVar = "JOINERY_CUSTODY_PLAN"

// A software custodian exports key sets of every origin in every form there is, and
// seals imported ones anew. Afterwards, while it still has its files open, no root key,
// old or new, no rekeying key, master key, KEK or MAC key is in memory that a core dump
// would hold. Of private keys, which the standard library takes apart and copies, it is
// told how much is there.
func TestCustodianForgets(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector's memory would be searched, too; it runs without")
	}
	if plan := os.Getenv(custodyPlanVar); plan != "" {
		custodyChild(t, plan)
		return
	}
	var secrets, private leak.Secrets
	plan, master := newCustodyPlan(t, &secrets, &private)
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "plan")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0], "-test.run=^TestCustodianForgets$")
	child.Env = append(os.Environ(), custodyPlanVar+"="+path)
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Wait() }()
	defer func() { _ = stdin.Close() }() // which ends it
	out := bufio.NewReader(stdout)
	if said, err := out.ReadString('\n'); said != custodyDone {
		why, _ := io.ReadAll(out)
		t.Fatalf("the child says %s%s, %v", said, why, err)
	}

	census, err := secrets.InProcess(child.Process.Pid)
	if errors.Is(err, fs.ErrPermission) {
		t.Skip("only root may read the memory of others here")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Log(census)
	copies, err := private.InProcess(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("of private keys, erasing mode of the runtime %v: %v", secret.Erases(), copies.In(leak.Dumped()...))
	if hits := census.In(leak.Dumped()...); len(hits) > 0 {
		t.Errorf("keys are in memory: %v", hits)
	}
	places, err := leak.WithCanary(child.Process.Pid, master, func() { census, err = secrets.InProcess(child.Process.Pid) })
	if err != nil || !slices.Contains(places, leak.Program) {
		t.Fatal(places, err)
	}
	for _, p := range places {
		if len(census.Hits[p]) == 0 {
			t.Errorf("a master key in %s is not found", p)
		}
	}
}

// newCustodyPlan makes files and key sets, and plants what is secret of them.
func newCustodyPlan(t *testing.T, secrets, private *leak.Secrets) (plan custodyPlan, masterKey []byte) {
	t.Helper()
	dir := t.TempDir()
	master, err := keyringtest.NewSoftFile(dir, "maker-1")
	if err != nil {
		t.Fatal(err)
	}
	plan.Options = soft.CustodianOptions{
		KeyFile: filepath.Join(dir, "keys"), Unlock: soft.Unlock{IdentityFile: filepath.Join(dir, "identity")},
		CustodyFile: filepath.Join(dir, "custody"), CustodyUnlock: soft.Unlock{IdentityFile: filepath.Join(dir, "custody-identity")},
	}
	for file, unlock := range map[string]soft.Unlock{plan.Options.KeyFile: plan.Options.Unlock, plan.Options.CustodyFile: plan.Options.CustodyUnlock} {
		keys, numbers := soft.SecretsOf(t, file, unlock)
		for name, key := range keys {
			secrets.PlantKey(name, key)
		}
		for name, n := range numbers {
			private.Plant(name, n)
		}
	}
	token, err := soft.Open(context.Background(), soft.Options{KeyFile: plan.Options.KeyFile, Unlock: plan.Options.Unlock})
	if err != nil {
		t.Fatal(err)
	}
	k := keyring.New(token)
	defer func() { _ = k.Close() }()
	f := keyringtest.Fixture{Keyring: k, Master: "maker-1", MasterKey: master}
	add := func(name string, ks joinery.KeySet, nwk, app [16]byte) {
		plan.Sets = append(plan.Sets, newCustodySet(ks))
		secrets.PlantKey("NwkKey of "+name, nwk[:])
		secrets.PlantKey("AppKey of "+name, app[:])
	}
	for n := range 5 {
		d := keyringtest.NewDevice(true)
		ks, nwk, app := f.DerivedKeySet(t, d.DevEUI, 1)
		add(fmt.Sprint("derived ", n), ks, nwk, app)
		add(fmt.Sprint("imported ", n), f.SealedKeySet(t, d), d.Nwk, d.App)
		for _, profile := range []joinery.RekeyProfile{joinery.RekeyS, joinery.RekeyM} {
			ks, roots := f.RekeyedKeySet(t, profile)
			add(fmt.Sprint("rekeyed ", profile, " ", n), ks, roots[exportfile.NwkKey], roots[exportfile.AppKey])
			for i, key := range f.RekeyingKeys(t, ks) {
				secrets.PlantKey(fmt.Sprintf("rekeying key %d of rekeyed %v %d", i, profile, n), key[:])
			}
		}
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	to, err := exportfile.NewRecipient(&curve.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	plan.RSA, plan.P256 = keyringtest.Recipient(t).Recipient().MarshalPEM(), to.MarshalPEM()
	return plan, master[:]
}

const custodyDone = "done\n"

// custodyChild does the work, and waits.
func custodyChild(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var plan custodyPlan
	if err := json.Unmarshal(text, &plan); err != nil {
		t.Fatal(err)
	}
	var in []keyring.ExportIn
	var roots []joinery.StoredRoots
	for _, s := range plan.Sets {
		ks := s.keySet()
		in = append(in, keyring.ExportIn{KeySet: ks, About: keyring.ExportMetadata(ks, lorawan.EUI64{9}, lorawan.MAC1_1)})
		if ks.Origin == joinery.OriginSealed {
			roots = append(roots, joinery.StoredRoots{KeySet: ks.ID, DevEUI: ks.DevEUI, MACVersion: lorawan.MAC1_1, Root10: ks.Root10, Nwk: ks.Nwk, App: ks.App})
		}
	}
	c, err := soft.OpenCustodian(t.Context(), plan.Options)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range c.Wrappings() {
		to, err := exportfile.ParseRecipient(plan.RSA)
		if w == exportfile.JWEECDHES {
			to, err = exportfile.ParseRecipient(plan.P256)
		}
		if err != nil {
			t.Fatal(err)
		}
		if w.Hash == exportfile.RawOAEP1.Hash {
			to = to.WithSHA1()
		}
		out, err := c.Export(t.Context(), keyringtest.ExportHeader(c, to, w, len(in)), to, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range out {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
			if _, err := exportfile.MarshalDevice(o.Device); err != nil {
				t.Fatal(err)
			}
		}
	}
	rsa, err := exportfile.ParseRecipient(plan.RSA)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rsa.TransportKey()
	if err != nil {
		t.Fatal(err)
	}
	_, again, err := c.Reseal(t.Context(), transport, roots)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range again {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	fmt.Print(custodyDone)
	_, _ = os.Stdin.Read(make([]byte, 1))
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
