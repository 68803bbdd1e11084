package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joinery/internal/config"
)

func TestSignInFollowsTheConfiguration(t *testing.T) {
	if s, err := newSignIn(config.SignIn{}, holders{}, nil, nil); s != nil || err != nil {
		t.Errorf("without an address: %v, %v", s, err)
	}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("hidden\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := config.SignIn{URL: "https://js.example.com", OIDC: config.OIDC{Issuer: "https://id.example.com", ClientID: "joinery", ClientSecretFile: file}}
	s, err := newSignIn(c, holders{}, nil, nil)
	if err != nil || s.URL() != c.URL || s.ProviderName() != "id.example.com" {
		t.Fatal(err)
	}
	if line, err := firstLine(file); err != nil || line != "hidden" {
		t.Errorf("%q, %v", line, err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := newSignIn(c, holders{}, nil, nil); err == nil || !strings.Contains(err.Error(), "others can read it") {
		t.Errorf("a secret that others can read: %v", err)
	}
	c.OIDC = config.OIDC{}
	if s, err := newSignIn(c, holders{}, nil, nil); err != nil || s.ProviderName() != "" {
		t.Errorf("passkeys alone: %v", err)
	}
}
