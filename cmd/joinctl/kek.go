package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"joinery/client"
	"joinery/internal/seal"

	"github.com/spf13/cobra"
)

func (a *app) kekCommand() *cobra.Command {
	c := &cobra.Command{Use: "kek", Short: "Key encryption keys shared with peers"}
	c.AddCommand(a.kekAddCommand(), a.kekListCommand(), a.kekRetireCommand())
	return c
}

// kekFlags are KEKs on a command line, LABEL=FILE each.
type kekFlags struct {
	ns, as       []string
	transportKey string
}

func (k *kekFlags) register(c *cobra.Command) {
	c.Flags().StringArrayVar(&k.ns, "ns-kek", nil, "LABEL=FILE of a KEK that wraps network session keys")
	c.Flags().StringArrayVar(&k.as, "as-kek", nil, "LABEL=FILE of a KEK that wraps AppSKey")
	registerTransportKey(c, &k.transportKey)
}

func registerTransportKey(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "transport-key", "", "PEM file of the server's transport key, to encrypt to no other (default: the server is asked for it)")
}

// transportKey reads the key to which to encrypt: from a file, else from the
// server, whose word for it is as good as the connection to it.
func transportKey(ctx context.Context, api *client.Client, path string) (seal.PublicKey, error) {
	if path != "" {
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
	t, err := api.TransportKey(ctx)
	if err != nil {
		return seal.PublicKey{}, err
	}
	return seal.ParsePublicKey([]byte(t.PEM))
}

// sealKEKs reads KEKs from files and encrypts them to the server.
func (a *app) sealKEKs(ctx context.Context, api *client.Client, k kekFlags, preset string) ([]client.NewKEK, error) {
	if len(k.ns)+len(k.as) == 0 {
		return nil, nil
	}
	to, err := transportKey(ctx, api, k.transportKey)
	if err != nil {
		return nil, err
	}
	var out []client.NewKEK
	for _, list := range []struct {
		role  string
		texts []string
	}{{"ns", k.ns}, {"as", k.as}} {
		for _, text := range list.texts {
			label, path, found := strings.Cut(text, "=")
			if !found || label == "" || path == "" {
				return nil, usagef("--%s-kek: want LABEL=FILE, with the key in the file", list.role)
			}
			kek, err := a.sealKEK(to, list.role, label, path, preset)
			if err != nil {
				return nil, err
			}
			out = append(out, kek)
		}
	}
	return out, nil
}

// sealKEK reads one KEK and encrypts it, for a role and label and no other.
func (a *app) sealKEK(to seal.PublicKey, role, label, path, preset string) (client.NewKEK, error) {
	key, err := a.readKEK(path)
	if err != nil {
		return client.NewKEK{}, err
	}
	defer clear(key)
	if preset == presetChirpStack && len(key) != 16 {
		return client.NewKEK{}, fmt.Errorf("KEK in %s: ChirpStack unwraps with keys of 16 bytes only", path)
	}
	header, k, err := seal.SealKEK(to, role, label, key)
	if err != nil {
		return client.NewKEK{}, fmt.Errorf("KEK in %s: %w", path, err)
	}
	return client.NewKEK{Role: role, Label: label, Seal: client.SealHeader(header), Wrapped: k.Wrapped, MAC: k.MAC}, nil
}

// readKEK reads a key file: hexadecimal digits, or the bare bytes.
func (a *app) readKEK(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("KEK: %w", err)
	}
	defer func() { _ = f.Close() }()
	a.warnIfOpen(f, "KEK")
	text := make([]byte, maxSecretFile)
	defer clear(text)
	n, err := f.Read(text)
	if err != nil {
		return nil, fmt.Errorf("KEK in %s: the file is empty or cannot be read", path)
	}
	if key, err := seal.ParseHexKey(text[:n]); err == nil {
		return key, nil
	}
	if n == 16 || n == 24 || n == 32 {
		return append([]byte(nil), text[:n]...), nil
	}
	return nil, fmt.Errorf("KEK in %s: want 32, 48 or 64 hexadecimal digits, or 16, 24 or 32 bytes", path)
}

// sealedKEK is a KEK as 'seal kek' writes it.
type sealedKEK struct {
	Format  string            `json:"format"`
	Role    string            `json:"role"`
	Label   string            `json:"label"`
	Seal    client.SealHeader `json:"seal"`
	Wrapped []byte            `json:"wrapped"`
	MAC     []byte            `json:"mac"` // binds role, label and key
}

const sealedKEKFormat = "joinery-kek/1"

// readSealedKEK reads a sealed KEK, which must be for this role and label.
func readSealedKEK(path, role, label string) (client.NewKEK, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return client.NewKEK{}, fmt.Errorf("sealed KEK: %w", err)
	}
	var k sealedKEK
	if json.Unmarshal(text, &k) != nil || k.Format != sealedKEKFormat {
		return client.NewKEK{}, fmt.Errorf("sealed KEK: %s is none; 'joinctl seal kek' makes one", path)
	}
	if k.Role != role || k.Label != label {
		return client.NewKEK{}, fmt.Errorf("sealed KEK: %s is sealed for another role or label, and opens for no other: it says role %q and label %q", path, clean(k.Role), clean(k.Label))
	}
	return client.NewKEK{Role: k.Role, Label: k.Label, Seal: k.Seal, Wrapped: k.Wrapped, MAC: k.MAC}, nil
}

func (a *app) kekAddCommand() *cobra.Command {
	var role, transport, sealed string
	c := a.command(&cobra.Command{
		Use:   "add PEER --role ns|as LABEL=FILE",
		Short: "Give a peer a new KEK, which wraps from now on",
		Long: `Give a peer a new version of its KEK for one role: ns wraps network session keys, as
wraps AppSKey. It wraps from now on; give the peer the same key under the same label
first. The older one stays, so that repeated answers can be made again, until
'joinctl kek retire'.

FILE holds the key as 32, 48 or 64 hexadecimal digits or as 16, 24 or 32 bytes. It is
encrypted to the server before it leaves this machine. --sealed gives one that
'joinctl seal kek' encrypted elsewhere for this role and label; then only LABEL is
given.`,
		Example: `  joinctl kek add "Example Networks" --role ns ns-60002A-v2=ns.kek
  joinctl kek add "Payload service" --role as as-v2 --sealed as-v2.sealed`,
		Args: cobra.ExactArgs(2),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		if role != "ns" && role != "as" {
			return usagef("--role: want ns or as")
		}
		p, err := findPeer(ctx, api, args[0])
		if err != nil {
			return err
		}
		label, path, hasFile := strings.Cut(args[1], "=")
		var in client.NewKEK
		switch {
		case sealed != "" && hasFile, sealed == "" && !hasFile:
			return usagef("give LABEL=FILE, or LABEL with --sealed FILE")
		case sealed != "":
			in, err = readSealedKEK(sealed, role, label)
		default:
			var to seal.PublicKey
			if to, err = transportKey(ctx, api, transport); err == nil {
				in, err = a.sealKEK(to, role, label, path, "")
			}
		}
		if err != nil {
			return err
		}
		made, err := api.AddKEK(ctx, p.ID, in)
		if err != nil {
			return err
		}
		return a.done(made, "%s wraps for %s from now on (version %d, %s)", made.Label, p.Name, made.Version, made.ID)
	})
	c.Flags().StringVar(&role, "role", "", "ns or as")
	c.Flags().StringVar(&sealed, "sealed", "", "file that 'joinctl seal kek' wrote")
	registerTransportKey(c, &transport)
	require(c, "role")
	return c
}

func (a *app) kekListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "list",
		Short:   "List KEKs, retired ones too",
		Example: "  joinctl kek list",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		keks, err := api.KEKs(ctx)
		if err != nil {
			return err
		}
		return showList(a, keks, columns[client.KEK]{
			names: []string{"label", "role", "version", "peer", "added", "state", "id"},
			cells: func(k client.KEK) []any {
				state := "in use"
				switch {
				case k.Retired:
					state = "retired"
				case k.Claimed:
					state = "for claims"
				}
				return []any{k.Label, k.Role, k.Version, k.Peer, when(k.CreatedAt, "?"), state, k.ID}
			},
			empty: "no KEKs; 'joinctl kek add' gives a peer one",
		})
	})
}

func (a *app) kekRetireCommand() *cobra.Command {
	var yes bool
	c := a.command(&cobra.Command{
		Use:     "retire KEK",
		Short:   "Wrap nothing under a KEK again",
		Long:    "Wrap nothing under a KEK again, for ever. A join that was answered under it cannot be answered again.",
		Example: "  joinctl kek retire ns-60002A-v1\n  joinctl kek retire ns-60002A-v1 --yes",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		k, err := findKEK(ctx, api, args[0])
		if err != nil {
			return err
		}
		if err := a.confirm(yes, fmt.Sprintf("Retiring %s (role %s, version %d) cannot be undone", clean(k.Label), k.Role, k.Version), k.Label, "--yes"); err != nil {
			return err
		}
		if err := api.RetireKEK(ctx, k.ID); err != nil {
			return err
		}
		return a.done(map[string]string{"kek": k.ID.String()}, "retired %s", k.Label)
	})
	yesFlag(c, &yes)
	return c
}
