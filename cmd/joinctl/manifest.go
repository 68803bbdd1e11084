package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"joinery"
	"joinery/client"
	"joinery/lorawan"
	"joinery/manifest"

	"github.com/spf13/cobra"
)

func (a *app) manifestCommand() *cobra.Command {
	c := &cobra.Command{Use: "manifest", Short: "Signed manifests of secure elements: check them, import them, say whose count"}
	signers := a.signerCommand()
	signers.Use, signers.Aliases = "signers", []string{"signer"}
	c.AddCommand(a.manifestImportCommand("joinctl manifest import"), a.manifestCheckCommand(), a.manifestEntryCommand(), signers)
	return c
}

// manifestImportCommand imports a manifest; name is how its examples call it.
func (a *app) manifestImportCommand(name string) *cobra.Command {
	var f importFlags
	var version, rekey string
	c := a.command(&cobra.Command{
		Use:   "import FILE --mac-version VERSION",
		Short: "Import the elements of a signed manifest",
		Long: `Import the secure elements of a signed manifest: of a factory of Joinery, of another
maker who writes the same shape, or of Microchip. The server verifies each entry
against the signers that it trusts ('joinctl signer'). A manifest does not say which
LoRaWAN version the devices speak: --mac-version does. An element that somebody else
brought in before is a conflict, which does not say whose it is. --rekey is your word for
how the elements can be rekeyed of which the manifest says nothing itself.` + importHelp,
		Example: `  ` + name + ` manifest.json --mac-version 1.0.4
  ` + name + ` manifest.json --mac-version 1.0.3 --bind-net-id 000013 --bind-as-id as.example.com
  ` + name + ` manifest.json --mac-version 1.1 --dry-run --report refused.jsonl
  ` + name + ` manifest.json --mac-version 1.0.4 --rekey M`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		mac, err := lorawan.ParseMACVersion(version)
		if err != nil {
			return usagef("--mac-version: %w", err)
		}
		if err := checkIsManifest(args[0]); err != nil {
			return err
		}
		j, err := a.begin(ctx, api, &f, args[0], client.NewImport{Kind: string(joinery.ImportManifest), MACVersion: mac, RekeyProfile: rekey})
		if err != nil {
			return err
		}
		entries := manifest.NewReader(j.progress)
		j.next = func() (row, error) {
			entry, err := entries.Next()
			return row{entry: entry, size: len(entry) * 4 / 3}, err
		}
		return a.finish(ctx, j, &f)
	})
	c.Flags().StringVar(&version, "mac-version", "", "LoRaWAN version of the devices: 1.0.0, 1.0.1, 1.0.2, 1.0.3, 1.0.4 or 1.1.0")
	c.Flags().StringVar(&rekey, "rekey", "", "how elements rekey of which the manifest says nothing: S or M (default: they do not)")
	require(c, "mac-version")
	f.register(c)
	return c
}

// checkIsManifest says at once what a file is that begins as no manifest does.
func checkIsManifest(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	start, err := bufio.NewReader(f).Peek(1)
	if err == nil && (start[0] == '[' || start[0] <= ' ') || errors.Is(err, io.EOF) {
		return nil // if it is none after all, the reader says where
	}
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	list, err := manifest.ReadDeviceList(f)
	for err == nil {
		if _, err = list.Next(); errors.Is(err, io.EOF) {
			return fmt.Errorf("%s lists devices and has no keys for them; elements come in by the manifest of their maker, other devices by 'joinctl import keys'", path)
		}
	}
	if errors.Is(err, manifest.ErrClearKey) {
		return fmt.Errorf("%s: %w; 'joinctl import keys' encrypts them on this machine", path, err)
	}
	return fmt.Errorf("%s: %w", path, manifest.ErrFile)
}

func (a *app) manifestEntryCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "entry DEVICE",
		Short: "Show the signed entry with which a device came in",
		Long: `Write the entry of its maker's manifest with which a device came in: what was signed of
it, letter by letter. Members beside that, which anybody could have written, are not
kept.`,
		Example: "  joinctl manifest entry 70B3D57ED0000000/0004A310001AA90A > entry.json",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		d, err := findDevice(ctx, api, args[0])
		if err != nil {
			return err
		}
		e, err := api.ManifestEntry(ctx, d.ID)
		if err != nil {
			return err
		}
		if a.flags.json {
			return writeJSON(a.out, e)
		}
		if len(e.Entry) == 0 {
			return errors.New("the device came by a key list: it has no manifest entry")
		}
		return a.printf("%s\n", e.Entry)
	})
}
