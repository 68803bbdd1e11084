package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"joinery/internal/backup"
	"joinery/internal/harden"
	"joinery/internal/keyring/soft"
)

func newCeremony() *cobra.Command {
	return group(&cobra.Command{
		Use:   "ceremony",
		Short: "Make and exchange the keys behind a Join Server",
		Long: `Makes and exchanges keys, offline, in a hardware token (run) or in key files (soft,
master), that no running server needs: a server sees what changed when it starts
next. Keys are never printed.`,
	}, newCeremonyRun(), newCeremonyVerify(), newCeremonyIdentity(), newCeremonySoft(), newCeremonyReseal(), newCeremonyTransport(), newCeremonyMaster())
}

// newKeyFile is a key file in the making.
type newKeyFile struct {
	path string
	// unlock is what it will be opened with: files that the caller named, or a
	// passphrase file beside it.
	unlock soft.Unlock
	drawn  bool // the passphrase was drawn here
	taken  bool // something had the path before
}

// prepareKeyFile names the key file NAME.age in dir, sealed as given says. Where
// it says nothing a passphrase is drawn, into NAME.passphrase.
func prepareKeyFile(dir, name string, given soft.Unlock) (newKeyFile, error) {
	k := newKeyFile{path: filepath.Join(dir, name+".age"), unlock: given}
	k.taken = present(k.path)
	if given != (soft.Unlock{}) {
		return k, nil
	}
	k.unlock.PassphraseFile = filepath.Join(dir, name+".passphrase")
	err := soft.NewPassphraseFile(k.unlock.PassphraseFile)
	k.drawn = err == nil // else the file is somebody's
	return k, err
}

// abandon takes a drawn passphrase back, unless there now is a key file: what
// failed may have failed after writing it, and nothing else would open it.
func (k newKeyFile) abandon() {
	if k.drawn && (k.taken || !present(k.path)) {
		_ = os.Remove(k.unlock.PassphraseFile) // the reason for abandoning is told
	}
}

// present tells whether something has the path, or may have.
func present(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func (k newKeyFile) String() string {
	return k.path + ", opened by " + k.unlock.String()
}

// newUnlockFlags adds flags that name what a new key file will be opened with.
func newUnlockFlags(cmd *cobra.Command, u *soft.Unlock, prefix, file string) {
	cmd.Flags().StringVar(&u.PassphraseFile, prefix+"passphrase-file", "", "file with a passphrase for "+file+", instead of a new one")
	cmd.Flags().StringVar(&u.IdentityFile, prefix+"identity-file", "", "file with an age identity for "+file+", instead of a passphrase")
	cmd.MarkFlagsMutuallyExclusive(prefix+"passphrase-file", prefix+"identity-file")
}

func newCeremonyIdentity() *cobra.Command {
	return &cobra.Command{
		Use:   "identity FILE",
		Short: "Make an age identity, to open key files or backups",
		Long: `Makes an age identity (X25519), as age-keygen does, in a new file of mode 0600, and
prints its recipient, which is public. To open a key file without a passphrase,
give the file to a ceremony with --identity-file, and to the server as
keys.identity_file. To open backups, keep it away from the server and give the
recipient to joinery backup.`,
		Example: `  joinery ceremony identity keys/server.identity
  joinery ceremony identity backup.identity`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := soft.CreateIdentity(args[0]); err != nil {
				return err
			}
			recipient, err := backup.RecipientOf(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "made %s; its recipient is %s\n", args[0], recipient)
			return nil
		},
	}
}

func newCeremonySoft() *cobra.Command {
	var dir string
	var unlock, custodyUnlock soft.Unlock
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
files with your own or with age identities, and are shown to nobody. Nothing is
ever overwritten.`,
		Example: `  joinery ceremony soft --dir /var/lib/joinery/keys
  joinery ceremony soft --dir keys --identity-file server.identity --custody-passphrase-file /media/stick/passphrase`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "dir", "keys", "where the files go; it is made if it is missing")
	newUnlockFlags(cmd, &unlock, "", "server.age")
	newUnlockFlags(cmd, &custodyUnlock, "custody-", "custody.age")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := harden.Process(); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		server, err := prepareKeyFile(dir, "server", unlock)
		if err != nil {
			return err
		}
		custody, err := prepareKeyFile(dir, "custody", custodyUnlock)
		if err == nil {
			err = soft.Init(soft.InitOptions{
				KeyFile: server.path, Unlock: server.unlock, CustodyFile: custody.path, CustodyUnlock: custody.unlock,
			})
		}
		if err != nil {
			server.abandon()
			custody.abandon()
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), `made %v
made %v
Keep a copy of the first two. Take the other two off this machine, to two places.
`, server, custody)
		return nil
	}
	return cmd
}

func newCeremonyReseal() *cobra.Command {
	var to soft.Unlock
	cmd := &cobra.Command{
		Use:   "reseal",
		Short: "Change what opens a key file",
		Long: `Writes a key file anew, a server's, a factory's or a custody file, so that another
passphrase, age identity, systemd credential or command opens it. The keys in it stay
what they are, and a running server goes on; say in its configuration what opens the
file from now on before it starts next. It is done in one step: a crash leaves the old
file or the new one. Backups of the file are opened by what opened it before: make new
ones, and destroy the old where the passphrase became known.`,
		Example: `  joinery ceremony reseal --config /etc/joinery/joinery.yaml --to-command /usr/local/lib/joinery/unlock
  joinery ceremony reseal --key-file custody.age --passphrase-file custody.passphrase --to-identity-file /media/stick/custody.identity`,
		Args: cobra.NoArgs,
	}
	file := keyFileFlags(cmd, true)
	flags := cmd.Flags()
	flags.StringVar(&to.PassphraseFile, "to-passphrase-file", "", "file with the new passphrase")
	flags.StringVar(&to.IdentityFile, "to-identity-file", "", "file with the new age identity")
	flags.StringVar(&to.Credential, "to-credential", "", "systemd credential with the new passphrase or age identity")
	flags.StringVar(&to.Command, "to-command", "", "program that writes the new passphrase or age identity")
	names := []string{"to-passphrase-file", "to-identity-file", "to-credential", "to-command"}
	cmd.MarkFlagsMutuallyExclusive(names...)
	cmd.MarkFlagsOneRequired(names...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		path, unlock, err := hardened(file)
		if err != nil {
			return err
		}
		if err := soft.Reseal(path, unlock, to); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "resealed %s, opened by %s from now on\n", path, to)
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
		path, unlock, err := hardened(file)
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
