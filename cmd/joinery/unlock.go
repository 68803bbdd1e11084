package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"joinery/internal/config"
	"joinery/internal/daemon"
	"joinery/internal/keyring/soft"
)

// keyFile is a sealed key file and what opens it, as flags name them.
type keyFile struct {
	path   string
	unlock soft.Unlock
	config *string
}

// keyFileFlags adds the flags of a command that works on one key file. Where
// none of them is given the server's configuration names the file, if the
// command has that flag.
func keyFileFlags(cmd *cobra.Command, withConfig bool) *keyFile {
	k := &keyFile{}
	flags := cmd.Flags()
	flags.StringVar(&k.path, "key-file", "", "the sealed key file")
	flags.StringVar(&k.unlock.PassphraseFile, "passphrase-file", "", "file with the passphrase of the key file")
	flags.StringVar(&k.unlock.IdentityFile, "identity-file", "", "file with the age identity of the key file")
	flags.StringVar(&k.unlock.Credential, "credential", "", "systemd credential with the passphrase of the key file")
	flags.StringVar(&k.unlock.Command, "command", "", "program that writes the passphrase or age identity of the key file")
	if withConfig {
		k.config = configFlag(cmd)
	}
	return k
}

// resolve gives the key file and what opens it.
func (k *keyFile) resolve() (string, soft.Unlock, error) {
	switch {
	case k.path != "" && k.unlock == soft.Unlock{}:
		return "", soft.Unlock{}, errors.New("say how to open the key file: --passphrase-file, --identity-file, --credential or --command")
	case k.path != "":
		return k.path, k.unlock, nil
	case k.unlock != soft.Unlock{} || k.config == nil:
		return "", soft.Unlock{}, errors.New("name the key file with --key-file")
	}
	c, err := config.Load(*k.config)
	if err != nil {
		return "", soft.Unlock{}, fmt.Errorf("%w\n(or name a key file with --key-file)", err)
	}
	if c.Keys.Backend != config.BackendSoft {
		return "", soft.Unlock{}, fmt.Errorf("the keys of %s are in a hardware token: this command is about a key file; name one with --key-file", *k.config)
	}
	return c.Keys.File, daemon.Unlock(c.Keys), nil
}
