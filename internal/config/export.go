package config

import "errors"

// Export says how approved exports get done.
type Export struct {
	// true: the server starts the custody process itself, `joinery export run`, each
	// time that an export was approved, and that process ends with it. false: exports
	// wait until the operator runs it by hand, with the custody key at hand.
	Automatic bool `yaml:"automatic"`
	// Where that process finds the custody key, to export keys that were imported.
	// Left out, it exports keys that derive from a master key alone, and the others
	// wait. The server never opens it. What is named here stays on this machine: a
	// custody key on a stick in a safe protects more, and makes exports wait for it.
	Custody Custody `yaml:"custody"`
}

// Custody says where the custody key is: in a file, or in a hardware token.
type Custody struct {
	// The custody file made by `joinery ceremony soft`, mode 0600.
	File string `yaml:"file"`
	// A file whose first line is its passphrase, mode 0600.
	PassphraseFile string `yaml:"passphrase_file"`
	// A file with the age identity to which it is encrypted, mode 0600.
	IdentityFile string `yaml:"identity_file"`
	// The path of the PKCS #11 library of the token that holds the custody key instead,
	// where the server's keys are in a token; empty means that of the server's token.
	Module string `yaml:"module"`
	// What that library wants to be told when it starts: nothing, for most.
	InitArgs string `yaml:"init_args"`
	// The label of that token.
	Token string `yaml:"token"`
	// A file whose first line is the PIN of the custody role, mode 0600. joinery-hsm
	// alone reads it.
	PINFile string `yaml:"pin_file"`
}

func (e Export) check(backend string) error {
	if !e.Custody.IsZero() && !e.Automatic {
		return wrong("export.custody", "is set, and export.automatic is false: set that to true, or name the custody key when you run joinery export run")
	}
	return e.Custody.Check(backend)
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
