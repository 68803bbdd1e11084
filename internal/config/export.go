package config

import "errors"

func (e Export) check(keys Keys) error {
	if e.Automatic && keys.Manual {
		return wrong("export.automatic", "is true, and the key file is opened by hand (keys.manual), which nobody does for an export")
	}
	if !e.Custody.IsZero() && !e.Automatic {
		return wrong("export.custody", "is set, and export.automatic is false: set that to true, or name the custody key when you run joinery export run")
	}
	return e.Custody.Check(keys.Backend)
}

// IsZero tells whether no custody key is named.
func (c Custody) IsZero() bool { return c == Custody{} }

// Check judges where the custody key is, beside a backend: it is kept in the same way
// as the server's keys.
func (c Custody) Check(backend string) error {
	if c.IsZero() {
		return nil
	}
	file := []setting{{"file", c.File}, {"passphrase_file", c.PassphraseFile}, {"identity_file", c.IdentityFile}}
	token := []setting{{"module", c.Module}, {"init_args", c.InitArgs}, {"token", c.Token}, {"pin_file", c.PINFile}}
	stray := token
	if backend == BackendPKCS11 {
		stray = file
	}
	for _, s := range stray {
		if s.value != "" {
			return wrong("export.custody."+s.name, "is set, and keys.backend is %s: the custody key is kept in the same way as the server's keys", backend)
		}
	}
	if backend == BackendPKCS11 {
		return errors.Join(required("export.custody.token", c.Token), required("export.custody.pin_file", c.PINFile))
	}
	return errors.Join(required("export.custody.file", c.File), onlyOne("export.custody", "to open the custody file", file[1:]))
}
