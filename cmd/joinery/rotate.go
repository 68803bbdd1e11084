package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"joinery"
	"joinery/client"
	"joinery/internal/ceremony"
	"joinery/internal/config"
	"joinery/internal/daemon"
	"joinery/internal/exportfile"
	"joinery/internal/harden"
	"joinery/internal/keyring"
	"joinery/internal/keyring/soft"
	"joinery/internal/seal"
)

func newRotate() *cobra.Command {
	return group(&cobra.Command{
		Use:   "rotate",
		Short: "Replace the keys that seal root keys, while joins go on",
		Long: `Replaces a key by a new generation beside it:

  1. joinery rotate join-kek --new        a new generation comes beside the old one
  2. systemctl reload joinery (SIGHUP)    the server seals under it, and opens both
  3. joinery rotate roots …               what is stored is sealed anew
  4. joinery rotate join-kek --retire     the old generation goes
  5. systemctl reload joinery             and leaves the server's memory

Each step may be repeated, and may end at any point. The keys are where the
configuration says: in the key file, or in a hardware token, which joinery-hsm opens
for the length of the command. Where several servers share a database each takes
steps 1, 2, 4 and 5 before the next step is taken; where they share a token, 1 and 4
are taken once. A backup that was made before step 3 needs the old key file: keep the
two together. A token does not give back what it destroyed.`,
	}, newRotateJoinKEK(), newRotateCustody(), newRotateTransport(), newRotateExport(), newRotateRoots(), newRotateStatus())
}

// generation is a command about one storage key.
type generation struct {
	key                  string // as a ceremony's plan names it
	short, long, example string
	// needed tells why the old generations are still needed; "" where they are not.
	needed func(client.Rotation, keyring.Generations) string
	// busy tells the same of what is under way; nil: nothing is.
	busy func(ctx context.Context, api *client.Client, have keyring.Generations) (string, error)
}

// storage is where a server's storage keys are.
type storage interface {
	look(ctx context.Context) (keyring.Generations, error)
	next(ctx context.Context, key string) (keyring.Generations, error)
	retire(ctx context.Context, key string) (keyring.Generations, error)
}

// inFile is a server's key file.
type inFile struct {
	path   string
	unlock soft.Unlock
}

func (f inFile) look(context.Context) (keyring.Generations, error) {
	return soft.Generations(f.path, f.unlock)
}

func (f inFile) next(_ context.Context, key string) (keyring.Generations, error) {
	switch key {
	case ceremony.TransportKey:
		return soft.NewTransportKey(f.path, f.unlock)
	case ceremony.ExportKey:
		return soft.NewExportKey(f.path, f.unlock)
	}
	return soft.NewJoinKEK(f.path, f.unlock)
}

func (f inFile) retire(_ context.Context, key string) (keyring.Generations, error) {
	switch key {
	case ceremony.TransportKey:
		return soft.RetireTransportKeys(f.path, f.unlock)
	case ceremony.ExportKey:
		return soft.RetireExportKeys(f.path, f.unlock)
	}
	return soft.RetireJoinKEKs(f.path, f.unlock)
}

func (g generation) command() *cobra.Command {
	cmd := &cobra.Command{Use: g.key, Short: g.short, Long: g.long, Example: g.example, Args: cobra.NoArgs}
	file, token := keyFileFlags(cmd, true), tokenFlags(cmd)
	step := stepFlags(cmd)
	cmd.MarkFlagsOneRequired("new", "retire")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		keys, err := token.open(file, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		if keys == nil {
			path, unlock, err := hardened(file)
			if err != nil {
				return err
			}
			return g.run(cmd, step, *file.config, inFile{path, unlock})
		}
		return g.run(cmd, step, *file.config, keys)
	}
	return cmd
}

// step is which step of a rotation is to be taken.
type step struct{ next, retire, yes bool }

func stepFlags(cmd *cobra.Command) *step {
	s := &step{}
	cmd.Flags().BoolVar(&s.next, "new", false, "draw a new generation")
	cmd.Flags().BoolVar(&s.retire, "retire", false, "take the old generations out; without --yes only say what would be done")
	cmd.Flags().BoolVar(&s.yes, "yes", false, "with --retire: do it")
	cmd.MarkFlagsMutuallyExclusive("new", "retire")
	return s
}

func (g generation) run(cmd *cobra.Command, s *step, configFile string, keys storage) error {
	const then = "now have the server read its keys anew: systemctl reload joinery"
	if s.next {
		made, err := keys.next(cmd.Context(), g.key)
		return told(cmd.OutOrStdout(), made, err, then)
	}
	if err := g.mayRetire(cmd.Context(), configFile, keys); err != nil {
		return err
	}
	if !s.yes {
		fmt.Fprintln(cmd.OutOrStdout(), "nothing needs the old generations any more; to take them out for ever, say --yes")
		return nil
	}
	left, err := keys.retire(cmd.Context(), g.key)
	return told(cmd.OutOrStdout(), left, err, then)
}

// mayRetire asks the running server.
func (g generation) mayRetire(ctx context.Context, configFile string, keys storage) error {
	have, err := keys.look(ctx)
	if err != nil {
		return err
	}
	api, err := ownServer(configFile)
	if err != nil {
		return err
	}
	defer api.Close()
	state, err := api.Rotation(ctx)
	if err != nil {
		return fmt.Errorf("ask the server whether the old generations are needed: %w", err)
	}
	why := g.needed(state, have)
	if why == "" && g.busy != nil {
		why, err = g.busy(ctx, api, have)
	}
	if err == nil && why != "" {
		err = errors.New("nothing can be retired: " + why)
	}
	return err
}

func told(w io.Writer, g keyring.Generations, err error, then string) error {
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "join KEK: generations %d\ncustody key: generation %d\ntransport keys: %s\nkeys of exports: %s\n%s\n",
		g.JoinKEK, g.Custody, g.Transport, thumbprints(g.Exports), then)
	return nil
}

// behind tells which key sets are under another generation of a key than newest.
func behind(state client.Rotation, key string, newest uint32) string {
	for _, under := range state.Under {
		if under.Key == key && under.Generation != newest {
			return fmt.Sprintf("%d key sets are under generation %d; see joinery rotate roots", under.KeySets, under.Generation)
		}
	}
	return ""
}

func newRotateJoinKEK() *cobra.Command {
	return generation{
		key: ceremony.JoinKEK, short: "Draw a new join KEK, or retire the old ones",
		long: `The join KEK wraps imported root keys for joins. --retire asks the running server
first whether anything is left under an old generation.`,
		example: `  joinery rotate join-kek --new --config /etc/joinery/joinery.yaml
  joinery rotate join-kek --retire --yes --config /etc/joinery/joinery.yaml`,
		needed: func(state client.Rotation, have keyring.Generations) string {
			if len(have.JoinKEK) == 1 {
				return "there is one join KEK only"
			}
			if !slices.Contains(state.JoinKEKs, have.Newest()) {
				return "the server does not have the newest one yet; reload it"
			}
			return behind(state, "join-kek", have.Newest())
		},
	}.command()
}

func newRotateTransport() *cobra.Command {
	return generation{
		key: ceremony.TransportKey, short: "Draw a new transport key, or retire the old ones",
		long: `The transport key is the one to which key lists, KEKs and master keys are sealed. What
was sealed to the old one opens until it is retired; then it must be sealed again.`,
		example: `  joinery rotate transport-key --new --config /etc/joinery/joinery.yaml
  joinery rotate transport-key --retire --yes --config /etc/joinery/joinery.yaml`,
		needed: func(state client.Rotation, have keyring.Generations) string {
			if len(have.Transport) == 1 {
				return "there is one transport key only"
			}
			if !slices.Equal(state.TransportKIDs, have.Transport) {
				return "the server does not tell others to seal to the newest one yet; reload it"
			}
			return ""
		},
	}.command()
}

func thumbprints(list []exportfile.Signer) (out []string) {
	for _, s := range list {
		out = append(out, s.Thumbprint())
	}
	return out
}

func newRotateExport() *cobra.Command {
	return generation{
		key: ceremony.ExportKey, short: "Draw a new key that signs exports, or retire the old ones",
		long: `The key of exports signs the files in which root keys leave the server. --new draws the
next one, or the first in a key file from a version without exports; exports that an
older one began are signed by it to the end. The public halves of all of them stay
published (joinctl export signers), so that old files verify: tell owners the new
thumbprint. --retire destroys the private halves of the old ones, once no export needs
them.`,
		example: `  joinery rotate export-key --new --config /etc/joinery/joinery.yaml
  joinery rotate export-key --retire --yes --config /etc/joinery/joinery.yaml`,
		needed: func(state client.Rotation, have keyring.Generations) string {
			switch {
			case len(have.Exports) < 2:
				return "there is one key only that signs exports"
			case !slices.Equal(state.ExportSigners, thumbprints(have.Exports)):
				return "the server does not publish the newest one yet; reload it"
			}
			return ""
		},
		busy: func(ctx context.Context, api *client.Client, have keyring.Generations) (string, error) {
			jobs, err := api.CustodyExports(ctx)
			if err != nil {
				return "", err
			}
			newest := have.Exports[len(have.Exports)-1].Thumbprint()
			for _, j := range jobs {
				if j.Started && j.Export.Signer != newest {
					return fmt.Sprintf("%s was begun under an older one; see joinery export run", j.Export.ID), nil
				}
			}
			return "", nil
		},
	}.command()
}

// newRotateCustody is about key files and tokens in two ways: a custody file is made
// whole, and its old one is a file to be put away; a token has generations.
func newRotateCustody() *cobra.Command {
	var made soft.InitOptions
	cmd := &cobra.Command{
		Use:   "custody-key",
		Short: "Draw a new custody key, or retire the old ones of a token",
		Long: `With a key file: makes a new custody file and puts its public half into the key file.
Have the server read that anew, then seal what is stored to it with joinery rotate
roots, which opens it with the OLD custody file. Then nothing of this server needs
that one any more; a backup from before does.

With a hardware token: makes a new pair in the token of the custody key, which is
named by flags and has a PIN of its own, and puts its public half into the server's
token. --retire destroys the old pairs, after it asked the running server whether
anything is left under them.`,
		Example: `  joinery rotate custody-key --new-custody-file custody-2.age --new-custody-passphrase-file custody-2.passphrase \
    --config /etc/joinery/joinery.yaml
  joinery rotate custody-key --new --custody-token joinery-custody --custody-pin-file /media/stick/custody.pin \
    --config /etc/joinery/joinery.yaml`,
		Args: cobra.NoArgs,
	}
	key, token := keyFileFlags(cmd, true), tokenFlags(cmd)
	step := stepFlags(cmd)
	token.custodyFlags(cmd)
	cmd.Flags().StringVar(&made.CustodyFile, "new-custody-file", "", "where the new custody file goes")
	cmd.Flags().StringVar(&made.CustodyUnlock.PassphraseFile, "new-custody-passphrase-file", "", "file with a passphrase for it")
	cmd.Flags().StringVar(&made.CustodyUnlock.IdentityFile, "new-custody-identity-file", "", "file with an age identity for it, instead of a passphrase")
	cmd.MarkFlagsMutuallyExclusive("new-custody-passphrase-file", "new-custody-identity-file")
	cmd.MarkFlagsOneRequired("new", "retire", "new-custody-file")
	for _, of := range []string{"new", "retire", "custody-token", "custody-pin-file"} {
		cmd.MarkFlagsMutuallyExclusive("new-custody-file", of)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		inToken, err := token.open(key, cmd.ErrOrStderr())
		switch {
		case err != nil:
			return err
		case inToken != nil && made.CustodyFile != "":
			return errors.New("the keys are in a hardware token: say --new or --retire, and name the token of the custody key")
		case inToken != nil:
			return custodyInToken.run(cmd, step, *key.config, inToken)
		case made.CustodyFile == "" || made.CustodyUnlock == soft.Unlock{}:
			return errors.New("the keys are in a key file: say --new-custody-file, and --new-custody-passphrase-file or --new-custody-identity-file")
		}
		if made.KeyFile, made.Unlock, err = hardened(key); err != nil {
			return err
		}
		g, err := soft.NewCustodyKey(made)
		return told(cmd.OutOrStdout(), g, err, "made "+made.CustodyFile+": take it off this machine once the rotation is over")
	}
	return cmd
}

// custodyInToken is what a token can do with custody keys.
var custodyInToken = generation{
	key: ceremony.CustodyKey,
	needed: func(state client.Rotation, have keyring.Generations) string {
		if state.Custody != have.Custody {
			return "the server does not seal to the newest one yet; reload it"
		}
		return behind(state, "custody", have.Custody)
	},
}

func newRotateStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Say how far what is stored is under the newest generations",
		Example: `  joinery rotate status --config /etc/joinery/joinery.yaml`,
		Args:    cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		api, err := ownServer(*path)
		if err != nil {
			return err
		}
		defer api.Close()
		state, err := api.Rotation(cmd.Context())
		if err != nil {
			return err
		}
		return printJSON(cmd.OutOrStdout(), state)
	}
	return cmd
}

func newRotateRoots() *cobra.Command {
	var batch int
	cmd := &cobra.Command{
		Use:   "roots",
		Short: "Seal imported root keys anew under the newest generations, while joins go on",
		Long: `Opens the custody key in a process of its own, and never in the server: it asks the
running server for the custody blobs of root keys that are under older generations,
opens them, seals the keys to the server's transport key as an import does, and hands
them in. The server makes sure that they are the keys that it has, seals them under
its newest generations and stores them. Keys in a custody token never leave it
readable: joinery-hsm, started for this, has the token open and seal them. It may be
ended at any point, and goes on where it was: what is stored says what is left. Run as
root or as the server's own user.`,
		Example: `  joinery rotate roots --config /etc/joinery/joinery.yaml --custody-file /media/stick/custody.age \
    --custody-passphrase-file /media/other/custody.passphrase
  joinery rotate roots --config /etc/joinery/joinery.yaml --custody-token joinery-custody --custody-pin-file /media/stick/custody.pin`,
		Args: cobra.NoArgs,
	}
	path := configFlag(cmd)
	named := custodyFlags(cmd)
	cmd.Flags().IntVar(&batch, "batch", client.MaxRotationRows, "how many key sets at once, at most 500")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if err := harden.Process(); err != nil {
			return err
		}
		custody, err := openCustodian(cmd.Context(), *path, *named, daemon.ToReseal)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, custody.Close()) }()
		api, err := ownServer(*path)
		if err != nil {
			return err
		}
		defer api.Close()
		r := &rewrapping{api: api, custody: custody, batch: min(max(batch, 1), client.MaxRotationRows), progress: cmd.ErrOrStderr()}
		return r.run(cmd.Context(), cmd.OutOrStdout())
	}
	return cmd
}

// ownServer connects to the operator socket of a server on this machine.
func ownServer(configFile string) (*client.Client, error) {
	c, err := config.Load(configFile)
	if err != nil {
		return nil, err
	}
	return client.New(client.Options{Socket: c.API.Socket})
}

// rewrapping is one run of rotate roots.
type rewrapping struct {
	api      *client.Client
	custody  keyring.Custodian
	batch    int
	progress io.Writer

	done, left, skipped int64
	failed              []joinery.KeySetID
	why                 error // of one that the custody key did not open; nil: none
}

func (r *rewrapping) run(ctx context.Context, out io.Writer) error {
	state, err := r.api.Rotation(ctx)
	if err != nil {
		return err
	}
	r.left = state.Behind
	fmt.Fprintf(r.progress, "%d of %d key sets are to be sealed anew\n", state.Behind, state.KeySets)
	for after := ""; ; {
		page, err := again(ctx, func() (client.Page[client.CustodyRoots], error) {
			return r.api.CustodyRootsPage(ctx, client.CustodyRootsQuery{After: after, Limit: r.batch})
		})
		if err != nil {
			return err
		}
		if err := r.rewrap(ctx, page.Items); err != nil {
			return err
		}
		if after = page.Next; after == "" {
			break
		}
	}
	fmt.Fprintf(out, "%d key sets sealed anew, %d were gone or done already\n", r.done, r.skipped)
	if n := len(r.failed); n > 0 {
		err := fmt.Errorf("%d key sets stay as they were, because their keys do not open or are not those that are stored (%s first); see joinery fsck --keys", n, r.failed[0])
		if r.why != nil {
			err = fmt.Errorf("%w; the custody process says of one: %w", err, r.why)
		}
		return err
	}
	return nil
}

// rewrap seals one page anew. The transport key is asked for each time, because it
// may be replaced meanwhile.
func (r *rewrapping) rewrap(ctx context.Context, items []client.CustodyRoots) error {
	if len(items) == 0 {
		return nil
	}
	o, err := again(ctx, func() (client.Rewrapped, error) { return r.handIn(ctx, items) })
	if err != nil {
		return err
	}
	r.done += int64(o.Changed)
	r.skipped += int64(o.Skipped)
	r.failed = append(r.failed, o.Failed...)
	fmt.Fprintf(r.progress, "%d of %d\n", r.done, r.left)
	return nil
}

func (r *rewrapping) handIn(ctx context.Context, items []client.CustodyRoots) (o client.Rewrapped, err error) {
	told, err := r.api.TransportKey(ctx)
	if err != nil {
		return o, err
	}
	to, err := seal.ParsePublicKey([]byte(told.PEM))
	if err != nil {
		return o, err
	}
	roots := make([]joinery.StoredRoots, len(items))
	for i, item := range items {
		roots[i] = joinery.StoredRoots{
			KeySet: item.KeySet, JoinEUI: item.JoinEUI, DevEUI: item.DevEUI, MACVersion: item.MACVersion,
			Nwk: joinery.SealedRoot{Custody: item.Nwk}, App: joinery.SealedRoot{Custody: item.App},
		}
		if err := roots[i].Root10.UnmarshalText([]byte(item.Root10)); err != nil {
			return o, err
		}
	}
	header, made, err := r.custody.Reseal(ctx, to, roots)
	if err != nil {
		return o, lasting{err}
	}
	in := client.RewrapRoots{Seal: client.SealHeader(header)}
	var stay []joinery.KeySetID
	for i, m := range made {
		if m.Err != nil {
			stay, r.why = append(stay, items[i].KeySet), m.Err
			continue
		}
		in.Rows = append(in.Rows, client.RewrapRow{KeySet: items[i].KeySet, Keys: rewrapKeys(m.Row)})
	}
	if len(in.Rows) > 0 {
		o, err = r.api.RewrapRoots(ctx, in)
	}
	o.Failed = append(o.Failed, stay...)
	return o, err
}

// rewrapKeys gives a row on its way to the server; rows that are sealed anew say
// nothing of nonces.
func rewrapKeys(r seal.SealedRow) client.SealedKeyRow {
	return client.SealedKeyRow{
		JoinEUI: r.JoinEUI, DevEUI: r.DevEUI, MACVersion: r.MACVersion, NwkKey: r.NwkKey, AppKey: r.AppKey, Root10: r.Root10, MAC: r.MAC,
	}
}

// How long a server that is away, because it is being started anew, is waited for.
const (
	awayFor  = time.Minute
	awayPoll = 250 * time.Millisecond
)

// again asks anew while the server is away: every request of a rotation may be
// repeated. What the server refuses is not asked again, but where it says that it
// is a matter of time.
func again[T any](ctx context.Context, ask func() (T, error)) (v T, err error) {
	for end := time.Now().Add(awayFor); ; {
		if v, err = ask(); err == nil || !isAway(err) || time.Now().After(end) {
			return v, err
		}
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-time.After(awayPoll):
		}
	}
}

// lasting is what went wrong here and not at the server: waiting does not help.
type lasting struct{ error }

func (l lasting) Unwrap() error { return l.error }

// isAway tells whether a request failed because nobody answers now.
func isAway(err error) bool {
	if _, here := errors.AsType[lasting](err); here {
		return false
	}
	p, answered := errors.AsType[*client.Problem](err)
	return !answered || p.Code == joinery.CodeUnavailable || p.Code == joinery.CodeRateLimited
}
