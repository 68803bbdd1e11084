package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joinery/internal/keyring/worker"
)

func TestReadPIN(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	write("credential", "4321\n", 0o440)
	write("world", "4321", 0o444)
	for _, tc := range []struct {
		name string
		c    worker.TokenConfig
		want string // the PIN, or the error behind "!"
	}{
		{"a line", worker.TokenConfig{PINFile: write("line", "1234\n", 0o600)}, "1234"},
		{"of DOS", worker.TokenConfig{PINFile: write("dos", "1234\r\nmore", 0o600)}, "1234"},
		{"without end", worker.TokenConfig{PINFile: write("bare", " a b ", 0o400)}, " a b "},
		{"the longest", worker.TokenConfig{PINFile: write("longest", strings.Repeat("x", maxPIN), 0o600)}, strings.Repeat("x", maxPIN)},
		{"longer", worker.TokenConfig{PINFile: write("longer", strings.Repeat("x", maxPIN+1), 0o600)}, "!1 to 255"},
		{"empty", worker.TokenConfig{PINFile: write("empty", "\n1234", 0o600)}, "!1 to 255"},
		{"for the group", worker.TokenConfig{PINFile: write("group", "1234", 0o640)}, "!mode 0640"},
		{"a directory", worker.TokenConfig{PINFile: dir}, "!must be a file"},
		{"missing", worker.TokenConfig{PINFile: filepath.Join(dir, "none")}, "!no such file"},
		{"a credential", worker.TokenConfig{PINCredential: "credential"}, "4321"},
		{"a credential for all", worker.TokenConfig{PINCredential: "world"}, "!mode 0444"},
		{"a path", worker.TokenConfig{PINCredential: "../line"}, "!without a path"},
		{"nothing", worker.TokenConfig{}, "!without a path"},
	} {
		pin, err := readPIN(tc.c)
		if reason, fails := strings.CutPrefix(tc.want, "!"); fails {
			if err == nil || !strings.Contains(err.Error(), reason) || strings.Contains(err.Error(), "1234") {
				t.Errorf("%s: %v, want %q", tc.name, err, reason)
			}
		} else if err != nil || string(pin) != tc.want {
			t.Errorf("%s: %q, %v", tc.name, pin, err)
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := readPIN(worker.TokenConfig{PINCredential: "credential"}); err == nil || !strings.Contains(err.Error(), "LoadCredential=credential") {
		t.Error(err)
	}
}

// By itself it says what it is for; what the server says it reads with care.
func TestAlone(t *testing.T) {
	var out bytes.Buffer
	if code := run([]string{"--help"}, &out); code != 2 || !strings.Contains(out.String(), "joinery serve") {
		t.Errorf("%d %s", code, &out)
	}
	log := &logger{to: &out}
	for _, tc := range []struct {
		config any
		want   string
	}{
		{"nonsense", "cannot be read"},
		{worker.TokenConfig{MinimumLevel: "best"}, "minimum_level"},
		{worker.TokenConfig{MinimumLevel: "in-token", PINFile: "/none"}, "PIN"},
	} {
		config, err := json.Marshal(tc.config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := openKeys(context.Background(), config, log, false); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: %v", tc.config, err)
		}
	}
}
