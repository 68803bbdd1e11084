package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// units copies what is installed to a directory, and gives joinery.service there,
// which starts a program that is on every machine.
func units(t *testing.T, dropIns ...string) string {
	t.Helper()
	dir := t.TempDir()
	put := func(from, to string) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join("..", "..", "deploy", from))
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.ReplaceAll(string(text), "/usr/local/bin/joinery", "/bin/true")
		path := filepath.Join(dir, to)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, unit := range []string{"joinery.service", "joinery.socket", "joinery-api.socket", "joinery-api-tls.socket", "joinery-ops.socket"} {
		put(unit, unit)
	}
	for _, name := range dropIns {
		put(name, filepath.Join("joinery.service.d", name))
	}
	return filepath.Join(dir, "joinery.service")
}

func analyze(t *testing.T, args ...string) string {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not here")
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// systemd takes every setting of the units, with a key file and with a token, and
// finds little that the service may do.
func TestUnits(t *testing.T) {
	for name, dropIns := range map[string][]string{"key file": nil, "hardware token": {"pkcs11.conf"}} {
		t.Run(name, func(t *testing.T) {
			unit := units(t, dropIns...)
			if out := analyze(t, "verify", "--man=no", unit); regexp.MustCompile(`joinery|pkcs11\.conf`).MatchString(out) {
				t.Errorf("systemd-analyze verify:\n%s", out)
			}
			// At most 1.5 of 10.
			analyze(t, "security", "--offline=true", "--threshold=15", unit)
		})
	}
}

// Keys stay in the process: what says so is in the unit, and the drop-in of a token
// takes none of it back.
func TestUnitsKeepKeysIn(t *testing.T) {
	text, err := os.ReadFile(units(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, setting := range []string{"LimitCORE=0", "MemorySwapMax=0", "NoNewPrivileges=yes", "ProtectProc=invisible", "LoadCredential=joinery:", "UMask=0077"} {
		if !strings.Contains(string(text), "\n"+setting) {
			t.Errorf("joinery.service lacks %s", setting)
		}
	}
	text, err = os.ReadFile(filepath.Join("..", "..", "deploy", "pkcs11.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, setting := range []string{"LoadCredential=\nLoadCredential=joinery-pin:", "LimitMEMLOCK=infinity"} {
		if !strings.Contains(string(text), "\n"+setting) {
			t.Errorf("pkcs11.conf lacks %s", setting)
		}
	}
	if strings.Contains(string(text), "LimitCORE") || strings.Contains(string(text), "MemorySwapMax") {
		t.Error("pkcs11.conf changes what keeps keys in")
	}
}
