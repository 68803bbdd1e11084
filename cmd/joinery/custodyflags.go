package main

import (
	"context"

	"github.com/spf13/cobra"

	"joinery/internal/config"
	"joinery/internal/daemon"
	"joinery/internal/keyring"
)

// custodyFlags adds the flags that name the custody key, in a file or in a token, in
// place of the configured one.
func custodyFlags(cmd *cobra.Command) *config.Custody {
	c := &config.Custody{}
	cmd.Flags().StringVar(&c.File, "custody-file", "", "the custody file (default: the configured custody key)")
	cmd.Flags().StringVar(&c.PassphraseFile, "custody-passphrase-file", "", "file with its passphrase")
	cmd.Flags().StringVar(&c.IdentityFile, "custody-identity-file", "", "file with its age identity, instead of a passphrase")
	cmd.Flags().StringVar(&c.Module, "custody-module", "", "PKCS #11 library of the custody key's token (default: that of the server's)")
	cmd.Flags().StringVar(&c.Token, "custody-token", "", "label of the custody key's token, where the keys are in tokens")
	cmd.Flags().StringVar(&c.PINFile, "custody-pin-file", "", "file with its PIN, which joinery-hsm alone reads")
	cmd.MarkFlagsMutuallyExclusive("custody-passphrase-file", "custody-identity-file")
	cmd.MarkFlagsMutuallyExclusive("custody-file", "custody-token")
	cmd.MarkFlagsRequiredTogether("custody-token", "custody-pin-file")
	return c
}

// openCustodian opens what they name.
func openCustodian(ctx context.Context, configFile string, named config.Custody, use daemon.CustodyUse) (keyring.Custodian, error) {
	c, err := config.Load(configFile)
	if err != nil {
		return nil, err
	}
	return daemon.OpenCustodian(ctx, c, named, use)
}
