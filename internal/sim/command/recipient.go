package command

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"joinery/internal/sim/silicon"
)

func newRecipient() *cobra.Command {
	var (
		dir    string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "recipient",
		Short: "Make the key pair to which a factory seals silicon files",
		Long: `Makes recipient.key and recipient.pub (RSA-3072). Give recipient.pub to whoever
runs "joinery factory"; keep recipient.key, the simulator opens elements with it.
Existing files are never replaced.`,
		Example: `  joinsim recipient --out demo/sim`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return errors.New("--out: name the directory to write to")
			}
			r, err := silicon.CreateRecipient(dir)
			if err != nil {
				return err
			}
			key, pub := filepath.Join(dir, silicon.RecipientKeyFile), filepath.Join(dir, silicon.RecipientPubFile)
			format := "recipient key %s made: %s (keep), %s (give to the factory)\n"
			if asJSON {
				format = `{"kid":%q,"key":%q,"pub":%q}` + "\n"
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), format, r.KID(), key, pub); err != nil {
				return fmt.Errorf("output: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "out", "", "directory to write to")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object instead of text")
	return cmd
}
