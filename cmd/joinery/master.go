package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"joinery/internal/harden"
	"joinery/internal/keyring"
	"joinery/internal/keyring/soft"
	"joinery/internal/seal"
)

func newCeremonyMaster() *cobra.Command {
	return group(&cobra.Command{
		Use:   "master",
		Short: "Master keys, from which the root keys of elements derive",
		Long: `A master key is made once, in the key file of a factory or of a server, and shared
with the other, sealed to its transport key. Compare the key check value on both
sides: it tells keys apart and nothing about them.`,
	}, newMasterNew(), newMasterShare(), newMasterAccept(), newMasterList())
}

func newMasterNew() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "new NAME",
		Short:   "Draw a new master key in a key file",
		Example: `  joinery ceremony master new acme-2026 --key-file factory.age --passphrase-file factory.passphrase`,
		Args:    cobra.ExactArgs(1),
	}
	file := keyFileFlags(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path, unlock, err := hardened(file)
		if err != nil {
			return err
		}
		m, err := soft.NewMaster(path, unlock, args[0])
		if err != nil {
			return err
		}
		printMasters(cmd.OutOrStdout(), m)
		return nil
	}
	return cmd
}

func newMasterShare() *cobra.Command {
	var to, out string
	cmd := &cobra.Command{
		Use:   "share NAME",
		Short: "Share a master key with another key file",
		Long: `Writes a master key, sealed to the transport key of the key file that is to have
it. The file may travel by any way; only that key file opens it.`,
		Example: `  joinery ceremony master share acme-2026 --key-file factory.age --passphrase-file factory.passphrase \
    --to transport.pub --out acme-2026.master`,
		Args: cobra.ExactArgs(1),
	}
	file := keyFileFlags(cmd, true)
	cmd.Flags().StringVar(&to, "to", "", "PEM file with the transport key of the other key file")
	cmd.Flags().StringVar(&out, "out", "", "where the shared key goes")
	require(cmd, "to", "out")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		recipient, err := readPublicKey(to)
		if err != nil {
			return err
		}
		path, unlock, err := hardened(file)
		if err != nil {
			return err
		}
		var shared bytes.Buffer
		m, err := soft.ShareMaster(path, unlock, args[0], recipient, &shared)
		if err != nil {
			return err
		}
		if err := newFile(out, 0o600, func(w io.Writer) error { _, err := shared.WriteTo(w); return err }); err != nil {
			return err
		}
		printMasters(cmd.OutOrStdout(), m)
		fmt.Fprintf(cmd.OutOrStdout(), "made %s, for the key %s\n", out, recipient.KID())
		return nil
	}
	return cmd
}

func newMasterAccept() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "accept FILE",
		Short:   "Take a shared master key into a key file",
		Long:    `Takes a master key that was shared with this key file. The same key twice changes nothing. A running server has it after its next start.`,
		Example: `  joinery ceremony master accept acme-2026.master --config /etc/joinery/joinery.yaml`,
		Args:    cobra.ExactArgs(1),
	}
	file := keyFileFlags(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		shared, err := os.ReadFile(args[0])
		if err != nil {
			return err
		}
		path, unlock, err := hardened(file)
		if err != nil {
			return err
		}
		m, err := soft.AcceptMaster(path, unlock, bytes.NewReader(shared))
		if err != nil {
			return err
		}
		printMasters(cmd.OutOrStdout(), m)
		return nil
	}
	return cmd
}

func newMasterList() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the master keys of a key file, with their check values",
		Example: `  joinery ceremony master list --config /etc/joinery/joinery.yaml`,
		Args:    cobra.NoArgs,
	}
	file := keyFileFlags(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		path, unlock, err := hardened(file)
		if err != nil {
			return err
		}
		masters, err := listMasters(cmd.Context(), soft.Options{KeyFile: path, Unlock: unlock})
		if err != nil {
			return err
		}
		printMasters(cmd.OutOrStdout(), masters...)
		return nil
	}
	return cmd
}

// listMasters reads the names in a key file, a server's or a factory's.
func listMasters(ctx context.Context, o soft.Options) ([]keyring.Master, error) {
	token, err := soft.Open(ctx, o)
	if err == nil {
		return token.Masters(), token.Close()
	}
	if !errors.Is(err, soft.ErrFormat) {
		return nil, err
	}
	f, err := soft.OpenFactory(ctx, o)
	if err != nil {
		return nil, err
	}
	return f.Masters(), f.Close()
}

func printMasters(w io.Writer, masters ...keyring.Master) {
	for _, m := range masters {
		fmt.Fprintf(w, "master key %s, profile %s, check value %s\n", m.Name, m.Profile, m.KCV)
	}
}

// hardened resolves a key file and keeps this process's memory to itself before
// keys come into it.
func hardened(file *keyFile) (string, soft.Unlock, error) {
	path, unlock, err := file.resolve()
	if err != nil {
		return "", soft.Unlock{}, err
	}
	return path, unlock, harden.Process()
}

// readPublicKey reads a transport or recipient key, PEM.
func readPublicKey(path string) (seal.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return seal.PublicKey{}, err
	}
	key, err := seal.ParsePublicKey(text)
	if err != nil {
		return seal.PublicKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// newFile writes a file in one step: it is there whole, or not at all. A file
// that exists is never replaced.
func newFile(path string, mode os.FileMode, write func(io.Writer) error) (err error) {
	taken := fmt.Errorf("%s exists already: nothing is overwritten; name another file, or move that one away", path)
	if _, err := os.Lstat(path); err == nil {
		return taken // before anything is made
	}
	f, err := renameio.NewPendingFile(path, renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Cleanup()) }()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// A link, unlike a renaming, replaces nothing that came meanwhile. Not every
	// file system has them.
	switch err := os.Link(f.Name(), path); {
	case errors.Is(err, os.ErrExist):
		return taken
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, os.ErrPermission):
		if err := f.CloseAtomicallyReplace(); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a new name in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// require marks flags as required.
func require(cmd *cobra.Command, flags ...string) {
	for _, name := range flags {
		_ = cmd.MarkFlagRequired(name) // fails only for a flag that was not added
	}
}
