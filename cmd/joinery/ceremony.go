package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"joinery/internal/daemon"
	"joinery/internal/keyring/soft"
)

func newCeremony() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ceremony",
		Short: "Make and exchange the keys behind a Join Server",
		Long: `Makes and exchanges keys, offline, on key files that no running server needs: a
server sees what changed when it starts next. Keys are never printed.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newCeremonySoft(), newCeremonyTransport(), newCeremonyMaster())
	return cmd
}

// sealedFile is a key file in the making, and the passphrase file that opens it.
type sealedFile struct{ path, passphrase string }

// inDir names the two files of a key file in dir.
func inDir(dir, name string) sealedFile {
	return sealedFile{filepath.Join(dir, name+".age"), filepath.Join(dir, name+".passphrase")}
}

// prepare draws the passphrase unless one is given, and gives how the key file
// is sealed. undo takes back what prepare made.
func (s *sealedFile) prepare(given string) (unlock soft.Unlock, undo func(), err error) {
	undo = func() {}
	if given != "" {
		s.passphrase = given
		return soft.Unlock{PassphraseFile: given}, undo, nil
	}
	if err := soft.NewPassphraseFile(s.passphrase); err != nil {
		return soft.Unlock{}, undo, err
	}
	made := s.passphrase
	return soft.Unlock{PassphraseFile: made}, func() { _ = os.Remove(made) }, nil
}

func newCeremonySoft() *cobra.Command {
	var dir, passphrase, custodyPassphrase string
	cmd := &cobra.Command{
		Use:   "soft",
		Short: "Make the key file of a new server, and its custody file",
		Long: `Makes, in one directory:

  server.age          the keys that the server works with, sealed
  server.passphrase   what opens it; the server needs both
  custody.age         the key that opens every imported root key for export and
                      rotation, sealed
  custody.passphrase  what opens it; the server needs neither

Take the custody files off this machine, to two places: whoever has both, and the
database, has the imported keys. Passphrases are drawn at random, unless you name
files with your own, and are shown to nobody. Nothing is ever overwritten.`,
		Example: `  joinery ceremony soft --dir /var/lib/joinery/keys`,
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "dir", "keys", "where the files go; it is made if it is missing")
	cmd.Flags().StringVar(&passphrase, "passphrase-file", "", "file with a passphrase for server.age, instead of a new one")
	cmd.Flags().StringVar(&custodyPassphrase, "custody-passphrase-file", "", "file with a passphrase for custody.age, instead of a new one")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if err := daemon.Harden(); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		server, custody := inDir(dir, "server"), inDir(dir, "custody")
		unlock, undo, err := server.prepare(passphrase)
		if err != nil {
			return err
		}
		custodyUnlock, undoCustody, err := custody.prepare(custodyPassphrase)
		if err == nil {
			err = soft.Init(soft.InitOptions{
				KeyFile: server.path, Unlock: unlock, CustodyFile: custody.path, CustodyUnlock: custodyUnlock,
			})
		}
		if err != nil {
			undo()
			undoCustody()
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), `made %s, opened by %s
made %s, opened by %s
Keep a copy of the first two. Take the other two off this machine, to two places.
`, server.path, server.passphrase, custody.path, custody.passphrase)
		return nil
	}
	return cmd
}

func newCeremonyTransport() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "transport-key",
		Short: "Print the public key to which others seal for this key file",
		Long: `Prints the transport key of a key file, a server's or a factory's, in PEM: to it
master keys are shared, and key lists and KEKs are sealed. It is public; whoever
gets it should compare the key identifier with you over another way.`,
		Example: `  joinery ceremony transport-key --key-file keys/server.age --passphrase-file keys/server.passphrase > transport.pub`,
		Args:    cobra.NoArgs,
	}
	file := keyFileFlags(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		path, unlock, err := file.resolve()
		if err != nil {
			return err
		}
		key, err := soft.TransportKey(path, unlock)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "key identifier %s\n", key.KID())
		_, err = cmd.OutOrStdout().Write(key.MarshalPEM())
		return err
	}
	return cmd
}
