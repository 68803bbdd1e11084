package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"joinery"
	"joinery/client"
	"joinery/internal/exportfile"
	"joinery/internal/harden"

	"github.com/spf13/cobra"
)

const fileSignerHelp = `

The file is signed by the server. --server-key is the thumbprint of the key that signs
there, as its operator publishes it and 'joinctl export show' tells. Without it the
key that signed is told, and remembered for that server when it is seen first; a file
signed by another one later is refused, until 'joinctl export signers --remember' asked
that server.`

func (a *app) exportOpenCommand() *cobra.Command {
	var trusted string
	var opening opening
	c := &cobra.Command{
		Use:   "open FILE --key FILE --format FORMAT --out FILE",
		Short: "Decrypt an exported file on your own machine",
		Long: `Verify and decrypt a file of 'joinctl export download' with the recipient's private
key, on a machine of your own: no server is asked. What comes out holds root keys that
anybody can read, in a new file that only you can read. The private key may be
protected by a passphrase (PKCS #8 as openssl writes it, or a file of age), which is
asked for, or be encrypted to an identity of age. Formats:

  tts-csv, tts-json  The Things Stack's import of end devices
  chirpstack         a line of JSON a device, with the bodies of ChirpStack's API calls
                     that make a device and set its keys, and with its nonces, which
                     that API does not take: see docs/export.md
  json               a line of JSON a device, with all that the file says of it

A device of LoRaWAN 1.0.x has one root key, which each format gets where it looks for
it: app_key in The Things Stack's, nwkKey in ChirpStack's. Of secure elements that is
the value that they call NwkKey.` + fileSignerHelp,
		Example: `  joinctl export open export.jsonl --key private.pem --format chirpstack --out devices.jsonl
  joinctl export open export.jsonl --key private.pem --format tts-csv --out devices.csv \
    --server-key NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return opening.run(a, func(write exportWriter) (int, error) {
				return a.openExport(cmd.Context(), args[0], opening.key, trusted, opening.out, write)
			})
		},
	}
	opening.register(c)
	c.Flags().StringVar(&trusted, "server-key", "", "thumbprint of the server's signing key")
	return c
}

// opening is how root keys come out of a file in which they were wrapped: for whom,
// in which form, and where to.
type opening struct {
	key               keyFile
	format, out, plan string
}

func (o *opening) register(c *cobra.Command) {
	f := c.Flags()
	o.key.register(c)
	f.StringVar(&o.format, "format", "", "tts-csv, tts-json, chirpstack or json")
	f.StringVar(&o.out, "out", "", "new file for the devices with their keys")
	f.StringVar(&o.plan, "frequency-plan", "", "frequency_plan_id for The Things Stack, as EU_863_870_TTN")
	for _, name := range []string{"key", "format", "out"} {
		_ = c.MarkFlagRequired(name) // there is such a flag
	}
}

// run has open write the devices, in a process that leaves no core behind, and says
// how many there were.
func (o *opening) run(a *app, open func(exportWriter) (int, error)) error {
	write, ok := exportFormats[o.format]
	if !ok {
		return usagef("--format: want tts-csv, tts-json, chirpstack or json")
	}
	if strings.ContainsFunc(o.plan, func(r rune) bool { return r <= ' ' || strings.ContainsRune(`;,"`, r) }) {
		return usagef("--frequency-plan: want an id of The Things Stack, such as EU_863_870_TTN")
	}
	if err := errors.Join(checkFree(o.out), harden.Process()); err != nil {
		return err
	}
	counting := &noncesFrom{exportWriter: write(o.plan)}
	n, err := open(counting)
	if err != nil {
		return err
	}
	if strings.HasPrefix(o.format, "tts-") && o.plan == "" {
		a.sayf("The Things Stack wants the frequency plan of each device: say it there as a fallback of the import, or here with --frequency-plan EU_863_870_TTN\n")
	}
	if what := withoutNonces[o.format]; what != "" && counting.minding > 0 {
		a.sayf("warning: %d of these devices refuse joins there at first: LoRaWAN 1.0.4 and 1.1 take no JoinNonce twice, and a server that begins at 1 has to be above "+
			"the last one (up to %d here). %s\n", counting.minding, counting.highest, what)
	}
	return a.done(map[string]any{"devices": n, "file": o.out, "format": o.format},
		"%d devices in %s: it holds their root keys, readable; remove it when they are where they should be", n, o.out)
}

// openExport decrypts the devices of path into a new file, and tells how many.
func (a *app) openExport(ctx context.Context, path string, key keyFile, trusted, out string, write exportWriter) (n int, err error) {
	private, err := a.readPrivateKey(ctx, key)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, private.Close()) }()
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	r, verifier, err := a.readExport(f, trusted)
	if err != nil {
		return 0, err
	}
	err = writeSecret(out, func(w io.Writer) error {
		return private.Open(r.Header(), func(o *exportfile.Opener) error {
			n, err = openDevices(r, verifier, o, w, write)
			return err
		})
	})
	if err == nil && n < r.Header().Devices {
		a.sayf("%d of the %d devices that were asked for are not in this file; 'joinctl export show --devices' says why\n", r.Header().Devices-n, r.Header().Devices)
	}
	return n, err
}

func openDevices(r *exportfile.Reader, v *exportfile.Verifier, o *exportfile.Opener, w io.Writer, write exportWriter) (n int, err error) {
	if err := write.begin(w); err != nil {
		return 0, err
	}
	for {
		d, err := r.Next()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err == nil {
			err = v.Verify(d)
		}
		if err == nil {
			err = o.Open(d, func(keys []exportfile.OpenedKey) error { return write.device(w, d.Metadata, keys) })
		}
		if err != nil {
			return n, fmt.Errorf("line %d: %w", r.Line(), err)
		}
		n++
	}
}

// keyFile is a file with a private key, and the one with what opens it, if any.
type keyFile struct{ path, passphrase, identity string }

func (k *keyFile) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&k.path, "key", "", "file with the recipient's private key: PEM or a JSON Web Key, protected or not")
	f.StringVar(&k.passphrase, "key-passphrase-file", "", "file with the passphrase of a protected key; - for standard input (default: it is asked for)")
	f.StringVar(&k.identity, "key-identity-file", "", "file with the identity of age to which the key file is encrypted")
	c.MarkFlagsMutuallyExclusive("key-passphrase-file", "key-identity-file")
}

// readPrivateKey reads the recipient's private key; it is wiped when it is closed.
func (a *app) readPrivateKey(ctx context.Context, k keyFile) (*exportfile.PrivateKey, error) {
	text, err := a.readKeyText(k.path, "private key")
	defer clear(text)
	if err != nil {
		return nil, err
	}
	u := exportfile.Unlock{Passphrase: func() ([]byte, error) { return a.askPassphrase(ctx, k) }}
	if k.identity != "" {
		if u.Identities, err = a.readKeyText(k.identity, "identity"); err != nil {
			return nil, err
		}
	}
	return exportfile.OpenPrivateKey(text, u)
}

// readKeyText reads a small file that others should not read. Whoever gets it clears
// it.
func (a *app) readKeyText(path, what string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	a.warnIfOpen(f, what)
	const most = 64 << 10
	text := make([]byte, most)
	n, err := io.ReadFull(f, text)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		clear(text)
		return nil, fmt.Errorf("%s: want a %s of at most %d bytes", path, what, most)
	}
	return text[:n], nil
}

// askPassphrase reads the passphrase of a key from the file that was named, or from a
// person.
func (a *app) askPassphrase(ctx context.Context, k keyFile) ([]byte, error) {
	if k.passphrase != "" {
		text, err := a.readSecretLine(k.passphrase, "passphrase")
		return []byte(text), err
	}
	f, ok := a.in.(*os.File)
	if !ok || !isTerminal(f) {
		return nil, fmt.Errorf("%s is protected by a passphrase: name a file that has it, with --key-passphrase-file", k.path)
	}
	a.sayf("passphrase of %s (it is not shown): ", k.path)
	text, err := readHidden(ctx, f)
	a.sayf("\n")
	return []byte(text), err
}

// readExport reads the head of a file, and sees to it that its signer is trusted.
func (a *app) readExport(f io.Reader, trusted string) (*exportfile.Reader, *exportfile.Verifier, error) {
	r, err := exportfile.NewReader(f)
	if err != nil {
		return nil, nil, err
	}
	h := r.Header()
	if trusted == "" {
		if trusted, err = a.trustSigner(h.Server, h.Signer.Thumbprint()); err != nil {
			return nil, nil, err
		}
	}
	v, err := exportfile.NewVerifier(h, trusted)
	return r, v, err
}

// signersFile is where the keys that signed are remembered, by server.
const signersFile = "export-signers.json"

// signers are thumbprints of keys, in the order in which they were seen. A file of an
// older version has one of each server, and no list.
type signers []string

func (s *signers) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*s = signers{one}
		return nil
	}
	var list []string
	err := json.Unmarshal(text, &list)
	*s = list
	return err
}

// knownSigners reads them, and gives their file.
func knownSigners() (known map[string]signers, path string, err error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return nil, "", fmt.Errorf("no place to remember the server's signing key: %w; give it with --server-key", err)
	}
	path, known = filepath.Join(dir, "joinctl", signersFile), map[string]signers{}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &known)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, path, fmt.Errorf("%s: %w", path, err)
	}
	return known, path, nil
}

// rememberSigners writes them.
func rememberSigners(path string, known map[string]signers) error {
	text, err := json.MarshalIndent(known, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o600)
}

// trustSigner gives the key that is trusted for a file of a server: this one where it
// is remembered; where none is, it is told and remembered. Else an error.
func (a *app) trustSigner(server, thumbprint string) (string, error) {
	known, path, err := knownSigners()
	if err != nil {
		return "", err
	}
	switch there := known[server]; {
	case slices.Contains(there, thumbprint):
		return thumbprint, nil
	case len(there) > 0:
		return "", fmt.Errorf("%w: it is signed by key %s, and remembered of %s is %s; if its operator drew a new one, "+
			"'joinctl export signers --remember' asks that server, or give it with --server-key", exportfile.ErrSignature, thumbprint, clean(server), there[len(there)-1])
	}
	a.sayf("signed by the key %s of %s, which is seen for the first time; compare it with what that server's operator says\n", thumbprint, clean(server))
	known[server] = signers{thumbprint}
	return thumbprint, rememberSigners(path, known)
}

func (a *app) exportSignersCommand() *cobra.Command {
	var remember bool
	c := a.command(&cobra.Command{
		Use:   "signers",
		Short: "List the keys that sign a server's exports, or once did",
		Long: `List the keys that sign exports of this server, or once did: the last one signs now.
With --remember 'joinctl export open' and 'joinctl export import' on this machine take
files of this server that one of them signed.`,
		Example: "  joinctl export signers\n  joinctl export signers --remember",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		list, err := api.ExportSigners(ctx)
		if err != nil {
			return err
		}
		if remember {
			known, path, err := knownSigners()
			if err != nil {
				return err
			}
			for _, s := range list {
				if !slices.Contains(known[s.Server], s.Thumbprint) {
					known[s.Server] = append(known[s.Server], s.Thumbprint)
				}
			}
			if err := rememberSigners(path, known); err != nil {
				return err
			}
		}
		return showList(a, list, columns[client.ExportSigner]{
			names: []string{"server", "thumbprint", "signs now"},
			cells: func(s client.ExportSigner) []any { return []any{s.Server, s.Thumbprint, yesNo(s.Signs)} },
			empty: "this server has no key that signs exports; its operator draws one with 'joinery rotate export-key --new'",
		})
	})
	c.Flags().BoolVar(&remember, "remember", false, "trust them on this machine")
	return c
}

func (a *app) exportImportCommand() *cobra.Command {
	var f importFlags
	var trusted string
	c := a.command(&cobra.Command{
		Use:   "import FILE",
		Short: "Import devices that another Joinery exported to this server's transport key",
		Long: `Bring in the devices of a file that another Joinery exported to the transport key of
this server (a recipient of kind join-server). Their nonces go on where they stood
there, and no key is readable in between: this program has none that opens it. What that
server knew of disclosures comes with them, as it signed it, and stays with the devices
for ever; the export itself is one.` + fileSignerHelp + importHelp,
		Example: `  joinctl export import export.jsonl --bind-net-id 000013 --bind-as-id as.example.com`,
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		j, err := a.begin(ctx, api, &f, args[0], client.NewImport{Kind: string(joinery.ImportKeyList)})
		if err != nil {
			return err
		}
		r, v, err := a.readExport(j.progress, trusted)
		if err == nil && r.Header().Wrapping.Form != exportfile.FormSeal {
			err = errors.New("this file is for the holder of a private key: 'joinctl export open' opens it; for another Join Server export to a recipient of kind join-server")
		}
		if err != nil {
			_ = j.progress.file.Close()
			return err
		}
		head, err := exportfile.MarshalHeader(r.Header())
		if err != nil {
			_ = j.progress.file.Close()
			return err
		}
		j.exported, j.next = string(head), exportRows(r, v)
		return a.finish(ctx, j, &f)
	})
	c.Flags().StringVar(&trusted, "server-key", "", "thumbprint of the other server's signing key")
	f.register(c)
	return c
}

// exportRows gives the lines of devices, as they were signed: the server verifies
// them, too. Those that were wrapped together have one header, and so one pointer.
func exportRows(r *exportfile.Reader, v *exportfile.Verifier) func() (row, error) {
	var last *client.SealHeader
	return func() (row, error) {
		d, err := r.Next()
		if err != nil {
			return row{}, err
		}
		if err := v.Verify(d); err != nil {
			return row{}, fmt.Errorf("line %d: %w", r.Line(), err)
		}
		if len(d.Keys[0].Wrapped) == 0 {
			return row{}, fmt.Errorf("line %d: this file has outlived its keys", r.Line())
		}
		if last == nil || !bytes.Equal(last.Key, d.Seal.Key) {
			h := client.SealHeader(*d.Seal)
			last = &h
		}
		line, err := exportfile.MarshalDevice(d)
		return row{line: string(line), header: last, size: len(line) + len(line)/8}, err
	}
}

// exportWriter writes devices with their keys in one format.
type exportWriter interface {
	begin(w io.Writer) error
	device(w io.Writer, m exportfile.Metadata, keys []exportfile.OpenedKey) error
}

// withoutNonces is what to do where the next server does not get the nonces from a
// format.
var withoutNonces = map[string]string{
	"chirpstack": "ChirpStack's API has no place for it: set join_nonce in device_keys of its database from nonces.joinNonce of each line, before the device joins; " +
		"or let it ask as often as that",
	"tts-csv": "The Things Stack's CSV has no place for it: use --format tts-json, or let the device ask as often as that",
}

var exportFormats = map[string]func(plan string) exportWriter{
	"json":       func(string) exportWriter { return jsonExport{} },
	"chirpstack": func(string) exportWriter { return chirpstackExport{} },
	"tts-csv":    func(plan string) exportWriter { return ttsExport{plan: plan, csv: true} },
	"tts-json":   func(plan string) exportWriter { return ttsExport{plan: plan} },
}

// rootOf gives the hexadecimal text of a root key; nil where the device has none of
// that name.
func rootOf(keys []exportfile.OpenedKey, name string) []byte {
	i := slices.IndexFunc(keys, func(k exportfile.OpenedKey) bool { return k.Root == name })
	if i < 0 {
		return nil
	}
	return fmt.Appendf(nil, "%X", keys[i].Key)
}
