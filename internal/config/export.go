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
	// The PKCS #11 library of the token that holds the custody key instead.
	Module string `yaml:"module"`
	// The label of that token.
	Token string `yaml:"token"`
	// A file whose first line is the PIN of the custody role, mode 0600. joinery-hsm
	// alone reads it.
	PINFile string `yaml:"pin_file"`
}

func (e Export) check() error {
	c := e.Custody
	inFile := c.File != "" || c.PassphraseFile != "" || c.IdentityFile != ""
	inToken := c.Module != "" || c.Token != "" || c.PINFile != ""
	switch {
	case !inFile && !inToken:
		return nil
	case inFile && inToken:
		return wrong("export.custody", "names a file and a token: keep the one that holds the custody key")
	case !e.Automatic:
		return wrong("export.custody", "is set, and export.automatic is false: set that to true, or name the custody key when you run joinery export run")
	case inToken:
		return errors.Join(required("export.custody.module", c.Module), required("export.custody.token", c.Token), required("export.custody.pin_file", c.PINFile))
	}
	return errors.Join(required("export.custody.file", c.File),
		onlyOne("export.custody", "to open the custody file", []setting{{"passphrase_file", c.PassphraseFile}, {"identity_file", c.IdentityFile}}))
}
