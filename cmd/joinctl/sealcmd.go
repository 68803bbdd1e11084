package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"joinery/client"
	"joinery/internal/exportfile"
	"joinery/internal/seal"

	"github.com/spf13/cobra"
)

func (a *app) sealCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "seal",
		Short: "Encrypt keys to a server's transport key, without a connection",
		Long: `Encrypt keys to a server's transport key, on a machine that need not reach the
server. 'joinctl seal transport-key' on a machine that does writes that key's file;
compare its key id with what the operator says.`,
	}
	c.AddCommand(a.sealKeysCommand(), a.sealKEKCommand(), a.sealTransportKeyCommand())
	return c
}

func (a *app) sealTransportKeyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "transport-key",
		Short:   "Write the server's transport key, in PEM",
		Example: "  joinctl seal transport-key > transport.pub",
		Args:    cobra.NoArgs,
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		api, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer api.Close()
		t, err := api.TransportKey(cmd.Context())
		if err != nil {
			return err
		}
		a.sayf("key id %s\n", t.KID)
		if to, err := exportfile.ParseRecipient([]byte(t.PEM)); err == nil {
			a.sayf("thumbprint %s, where it is a recipient of exports\n", to.Thumbprint())
		}
		return a.show(t, func() error { return a.printf("%s", t.PEM) })
	}
	return c
}

// readTransportKey reads the key of --to.
func readTransportKey(path string) (seal.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return seal.PublicKey{}, fmt.Errorf("transport key: %w", err)
	}
	key, err := seal.ParsePublicKey(text)
	if err != nil {
		return seal.PublicKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func (a *app) sealKeysCommand() *cobra.Command {
	var to, out string
	var k keyListFlags
	c := &cobra.Command{
		Use:   "keys FILE.csv --to transport.pub --out FILE",
		Short: "Encrypt a key list",
		Long: `Encrypt a key list to a server. The result holds identifiers and ciphertext, may go
any way to where 'joinctl import sealed' runs, and is of use to that server alone.
Rows that cannot be used are listed with their line and left out; the exit code is
then 3.` + keyListHelp,
		Example: "  joinctl seal keys devices.csv --to transport.pub --out devices.sealed",
		Args:    cobra.ExactArgs(1),
	}
	c.RunE = func(_ *cobra.Command, args []string) error {
		opt, err := k.options()
		if err != nil {
			return err
		}
		key, err := readTransportKey(to)
		if err != nil {
			return err
		}
		in, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
		return a.sealKeys(in, out, key, opt)
	}
	c.Flags().StringVar(&to, "to", "", "PEM file of the server's transport key")
	c.Flags().StringVar(&out, "out", "", "file to write; it replaces one that is there")
	k.register(c)
	require(c, "to")
	require(c, "out")
	return c
}

// sealKeys writes the sealed list beside its place and then into it, so that
// nobody takes half a list for a whole one.
func (a *app) sealKeys(in io.Reader, path string, to seal.PublicKey, opt seal.KeyListOptions) error {
	list, err := seal.KeyList(in, to, opt)
	if err != nil {
		return err
	}
	defer list.Close()
	tmp, err := os.CreateTemp(filepath.Dir(path), ".sealing-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already after the rename
	good, bad, err := a.copySealed(tmp, list)
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	result := map[string]any{"file": path, "sealed": good, "refused": append([]client.BadRow{}, bad...)}
	if err := a.done(result, "%d devices sealed into %s, %d rows refused", good, path, len(bad)); err != nil {
		return err
	}
	if len(bad) > 0 {
		return errPartial
	}
	return nil
}

func (a *app) copySealed(w io.Writer, list *seal.KeyListReader) (good int, bad []client.BadRow, err error) {
	out, err := seal.NewFileWriter(w, list.Header())
	if err != nil {
		return 0, nil, err
	}
	for index := uint64(0); ; index++ {
		r, err := list.Next()
		if errors.Is(err, io.EOF) {
			return good, bad, out.Flush()
		}
		if wrong, ok := errors.AsType[*seal.RowError](err); ok {
			bad = append(bad, client.BadRow{Index: index, Line: wrong.Line, Reason: wrong.Reason})
			if !a.flags.json {
				if err := a.printf("line %d: %s\n", wrong.Line, clean(wrong.Reason)); err != nil {
					return good, bad, err
				}
			}
			continue
		}
		if err != nil {
			return good, bad, err
		}
		if err := out.Write(r); err != nil {
			return good, bad, err
		}
		good++
	}
}

func (a *app) sealKEKCommand() *cobra.Command {
	var to, role string
	c := &cobra.Command{
		Use:   "kek LABEL=FILE --role ns|as --to transport.pub",
		Short: "Encrypt a KEK",
		Long: `Encrypt a KEK, from a file with 32, 48 or 64 hexadecimal digits or 16, 24 or 32 bytes,
to a server. 'joinctl kek add --sealed' gives the result to it, for the same role and
label: the key opens for no other.`,
		Example: "  joinctl seal kek ns-60002A-v1=ns.kek --role ns --to transport.pub > ns-60002A-v1.sealed",
		Args:    cobra.ExactArgs(1),
	}
	c.RunE = func(_ *cobra.Command, args []string) error {
		label, path, found := strings.Cut(args[0], "=")
		switch {
		case role != "ns" && role != "as":
			return usagef("--role: want ns or as")
		case !found || label == "" || path == "":
			return usagef("want LABEL=FILE, with the key in the file")
		}
		key, err := readTransportKey(to)
		if err != nil {
			return err
		}
		k, err := a.sealKEK(key, role, label, path, "")
		if err != nil {
			return err
		}
		return writeJSON(a.out, sealedKEK{
			Format: sealedKEKFormat, Role: k.Role, Label: k.Label, Seal: k.Seal, Wrapped: k.Wrapped, MAC: k.MAC,
		})
	}
	c.Flags().StringVar(&role, "role", "", "ns or as")
	require(c, "role")
	c.Flags().StringVar(&to, "to", "", "PEM file of the server's transport key")
	require(c, "to")
	return c
}
