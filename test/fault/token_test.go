package fault

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"joinery/client"
	"joinery/internal/config"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/keyring/keyringtest"
	"joinery/test/leak"
	"joinery/test/rig"
)

var buildHSM = sync.OnceValues(func() (string, error) {
	programs, err := rig.BuildHSM(context.Background(), programDir)
	return programs.Binary("joinery-hsm"), err
})

// auditFile is where joinery-hsm records its answers, in a server's directory.
const auditFile = "keys-audit.jsonl"

// withToken moves a server from its key file to a SoftHSM token: with the same
// master key, so that its elements stay its own, and with other keys for all else.
// It plants all keys that are known, and gives the master key.
func withToken(t *testing.T, s *rig.Server, keys *leak.Secrets) (master [32]byte) {
	t.Helper()
	program, err := buildHSM()
	ok(t, err)
	old := openKeyFile(t, s)
	master = old.master(t)
	keys.PlantKey("master key", master[:])
	keys.PlantText("PIN", hsmtest.PIN)

	opt, vault := hsmtest.SoftHSM(t), hsmtest.SoftHSM(t)
	custody, err := hsm.NewCustodyKey(vault)
	ok(t, err)
	made, err := hsm.Provision(context.Background(), opt, hsm.Plan{Custody: custody})
	ok(t, err)
	share, err := keyringtest.ShareOf(master, old.Masters[0].Name, made.Transport)
	ok(t, err)
	_, err = hsm.AcceptMaster(opt, bytes.NewReader(share))
	ok(t, err)

	c, err := config.Read(s.Path("joinery.yaml"))
	ok(t, err)
	ok(t, errors.Join(os.Remove(s.Path(c.Keys.File)), os.Remove(s.Path(c.Keys.PassphraseFile))))
	pin := filepath.Join(t.TempDir(), "pin") // not among the server's files, which are searched
	ok(t, os.WriteFile(pin, []byte(hsmtest.PIN+"\n"), 0o600))
	c.Keys = config.Keys{Backend: config.BackendPKCS11, File: c.Keys.File, PKCS11: config.PKCS11{ // beside File lies what the database is compared with
		Module: opt.Module, Token: opt.Token, PINFile: pin, Worker: program, MinimumLevel: "in-token", RecycleRSS: 192,
		DevicePerMinute: 120, AuditFile: auditFile,
	}}
	c.Export = config.Export{Automatic: true, Custody: config.Custody{Token: vault.Token, PINFile: pin}}
	var text bytes.Buffer
	ok(t, config.Print(&text, c))
	ok(t, os.WriteFile(s.Path("joinery.yaml"), text.Bytes(), 0o600))
	renewKEKs(t, s)
	return master
}

// renewKEKs gives the peers KEKs in place of those that only the old keys open.
func renewKEKs(t *testing.T, s *rig.Server) {
	t.Helper()
	ok(t, s.Start(t.Context()))
	api, err := client.New(client.Options{Socket: s.Path("joinery.sock")})
	ok(t, err)
	defer api.Close()
	keks, err := api.KEKs(t.Context())
	ok(t, err)
	added := map[string]map[string]string{} // by the old label
	for _, k := range keks {
		key := make([]byte, 16)
		rand.Read(key)
		file := filepath.Join(t.TempDir(), "kek")
		ok(t, os.WriteFile(file, []byte(hex.EncodeToString(key)), 0o600))
		label := k.Label + "-renewed"
		_, err := s.Ctl(t.Context(), "", "kek", "add", k.Peer.String(), "--role", k.Role, label+"="+file)
		ok(t, err)
		added[k.Label] = map[string]string{label: hex.EncodeToString(key)}
	}
	ok(t, s.Stop())
	ok(t, s.EditSim(func(c map[string]any) {
		for _, kind := range []string{"ns", "as"} {
			for _, p := range c[kind].([]any) {
				peer := p.(map[string]any)
				for old := range peer["keks"].(map[string]any) {
					peer["keks"] = added[old]
				}
			}
		}
	}))
}
