package config

import (
	"errors"
	"net/netip"
	"net/url"
	"time"
)

// On tells whether people can sign in.
func (s SignIn) On() bool { return s.URL != "" }

func (s SignIn) check() error {
	if !s.On() {
		if s.OIDC != (OIDC{}) {
			return wrong("sign_in.url", "is missing: the provider sends people back to it")
		}
		return nil
	}
	errs := []error{
		webAddress("sign_in.url", s.URL, false),
		timeBetween("sign_in.session", s.Session, time.Minute, 30*24*time.Hour),
	}
	if s.OIDC != (OIDC{}) {
		errs = append(errs, required("sign_in.oidc.issuer", s.OIDC.Issuer), required("sign_in.oidc.client_id", s.OIDC.ClientID))
	}
	if s.OIDC.Issuer != "" {
		errs = append(errs, webAddress("sign_in.oidc.issuer", s.OIDC.Issuer, true))
	}
	return errors.Join(errs...)
}

// CheckSecret tells when the client secret is not there, or when others than its
// owner can read it.
func (o OIDC) CheckSecret() error {
	return secretFile("sign_in.oidc.client_secret_file", o.ClientSecretFile, "the OpenID provider gave the secret together with the client id")
}

// webAddress wants an https address, or an http one of this machine. A host name
// is wanted where no path is: passkeys belong to names, not to addresses.
func webAddress(name, text string, path bool) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !path && u.Path != "" {
		return wrong(name, "want an address such as https://js.example.com, without a path, a user or a query")
	}
	ip, err := netip.ParseAddr(u.Hostname())
	switch {
	case !path && err == nil:
		return wrong(name, "want a host name, not an address: browsers keep passkeys for names; http://localhost will do on this machine")
	case u.Scheme == "https", u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && ip.IsLoopback()):
		return nil
	}
	return wrong(name, "want https://, or http:// on this machine alone (localhost): what signs people in would travel readable")
}
