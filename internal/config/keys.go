package config

import (
	"errors"
	"os"
	"strings"
)

// Levels of custody that may be demanded.
var levels = []string{"in-token", "ecb-oracle", "in-memory"}

// check judges what one backend needs, and that nothing is said of the other:
// whoever names a token means it.
func (k Keys) check() error {
	if err := oneOf("keys.backend", k.Backend, BackendSoft, BackendPKCS11); err != nil {
		return err
	}
	if k.Backend == BackendPKCS11 {
		return k.checkToken()
	}
	var stray error
	for _, s := range append(k.PKCS11.unlocks(), setting{"module", k.PKCS11.Module}, setting{"token", k.PKCS11.Token}) {
		if s.value != "" {
			stray = wrong("keys.pkcs11."+s.name, "is set, and keys.backend is soft: set it to pkcs11, or remove what is said of a token")
		}
	}
	return errors.Join(
		required("keys.file", k.File),
		onlyOne("keys", "to open the key file", k.unlocks()),
		credentialName("keys.credential", k.Credential),
		stray,
	)
}

// setting is one of several, of which one is wanted.
type setting struct{ name, value string }

// unlocks are the ways to open the key file.
func (k Keys) unlocks() []setting {
	return []setting{{"passphrase_file", k.PassphraseFile}, {"identity_file", k.IdentityFile}, {"credential", k.Credential}, {"command", k.Command}, {"manual", isSet(k.Manual)}}
}

func isSet(b bool) string {
	if b {
		return "true"
	}
	return ""
}

// unlocks are the ways to learn the PIN.
func (p PKCS11) unlocks() []setting {
	return []setting{{"pin_file", p.PINFile}, {"pin_credential", p.PINCredential}}
}

func (k Keys) checkToken() error {
	var stray error
	for _, s := range k.unlocks() {
		if s.value != "" {
			stray = wrong("keys."+s.name, "is set, and keys.backend is pkcs11: it opens a key file, and a token has a PIN, see keys.pkcs11")
		}
	}
	p := k.PKCS11
	return errors.Join(
		stray,
		required("keys.pkcs11.module", p.Module),
		required("keys.pkcs11.token", p.Token),
		onlyOne("keys.pkcs11", "to learn the PIN", p.unlocks()),
		credentialName("keys.pkcs11.pin_credential", p.PINCredential),
		between("keys.pkcs11.sessions", p.Sessions, 0, 256),
		oneOf("keys.pkcs11.minimum_level", p.MinimumLevel, levels...),
		between("keys.pkcs11.recycle_rss", p.RecycleRSS, 0, 1<<20),
		between("keys.pkcs11.device_per_minute", p.DevicePerMinute, 0, 1<<20),
	)
}

// onlyOne wants exactly one of some settings.
func onlyOne(name, what string, settings []setting) error {
	var all, given []string
	for _, s := range settings {
		all = append(all, s.name)
		if s.value != "" {
			given = append(given, s.name)
		}
	}
	switch len(given) {
	case 0:
		last := len(all) - 1
		return wrong(name, "nothing says how %s: set one of %s and %s", what, strings.Join(all[:last], ", "), all[last])
	case 1:
		return nil
	}
	return wrong(name, "%s are set: keep one way %s", strings.Join(given, " and "), what)
}

func credentialName(name, value string) error {
	if strings.ContainsAny(value, "/\x00") || value == "." || value == ".." {
		return wrong(name, "want the name of a systemd credential, not a path")
	}
	return nil
}

// checkFiles judges what opens the keys, and reads none of it.
func (k Keys) checkFiles() error {
	if k.Backend == BackendPKCS11 {
		return errors.Join(
			exists("keys.pkcs11.module", k.PKCS11.Module, "it is the token's PKCS #11 library"),
			secretFile("keys.pkcs11.pin_file", k.PKCS11.PINFile, ""),
			credentialThere("keys.pkcs11.pin_credential", k.PKCS11.PINCredential),
			exists("keys.pkcs11.worker", k.PKCS11.Worker, "it is the program joinery-hsm"),
		)
	}
	return errors.Join(
		secretFile("keys.file", k.File, "make it with `joinery ceremony soft`"),
		secretFile("keys.passphrase_file", k.PassphraseFile, ""),
		secretFile("keys.identity_file", k.IdentityFile, ""),
		credentialThere("keys.credential", k.Credential),
		program("keys.command", k.Command),
	)
}

func credentialThere(name, value string) error {
	if value != "" && os.Getenv("CREDENTIALS_DIRECTORY") == "" {
		return wrong(name, "there is no $CREDENTIALS_DIRECTORY here: it exists only under systemd with LoadCredential=%s:…", value)
	}
	return nil
}
