package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"joinery/internal/auth"
	"joinery/internal/config"
)

// newSignIn makes what signs people in; nil where c says that nobody does.
func newSignIn(c config.SignIn, h holders, log *slog.Logger, now func() time.Time) (*auth.SignIn, error) {
	if !c.On() {
		return nil, nil
	}
	o := auth.SignInOptions{URL: c.URL, Session: c.Session, Log: log, Now: now}
	if c.OIDC.Issuer != "" {
		if err := c.OIDC.CheckSecret(); err != nil {
			return nil, fmt.Errorf("client secret of the OpenID provider:\n%w", err)
		}
		secret, err := firstLine(c.OIDC.ClientSecretFile)
		if err != nil {
			return nil, fmt.Errorf("client secret of the OpenID provider: %w", err)
		}
		o.Provider = auth.NewProvider(c.OIDC.Issuer, c.OIDC.ClientID, secret, nil)
	}
	return auth.NewSignIn(h.db, o)
}

// firstLine reads the first line of a file; "" where there is no file to read.
func firstLine(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSuffix(line, "\r"), err
}
