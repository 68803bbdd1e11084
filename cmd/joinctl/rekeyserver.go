package main

import (
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"joinery/client"
	"joinery/internal/seal"
)

// findJoinServer finds a pinned Join Server by its name or id.
func findJoinServer(ctx context.Context, api *client.Client, arg string) (client.JoinServer, error) {
	for j, err := range api.JoinServers(ctx, client.JoinServersQuery{}) {
		if err != nil {
			return client.JoinServer{}, err
		}
		if j.Name == arg || j.ID.String() == arg {
			return j, nil
		}
	}
	return client.JoinServer{}, fmt.Errorf("no Join Server %s is pinned: 'joinctl rekey server list' lists them", arg)
}

func (a *app) rekeyServerCommand() *cobra.Command {
	c := &cobra.Command{Use: "server", Short: "Other Join Servers to which devices may go"}
	c.AddCommand(a.rekeyServerAddCommand(), a.rekeyServerChangeCommand(), a.rekeyServerListCommand(), a.rekeyServerRemoveCommand(), a.rekeyServerKeysCommand())
	return c
}

func (a *app) rekeyServerAddCommand() *cobra.Command {
	var pin pinFlags
	c := a.command(&cobra.Command{
		Use:   "add NAME --transport-key FILE --statement-key FILE",
		Short: "Pin a Join Server to which new root keys may go",
		Long: `Pin another Join Server, for the operator: new root keys may go to it, sealed to its
transport key, and what it says is believed. Get both keys from its operator by a way that
you trust; there, 'joinctl rekey server keys' writes them. With --url orders are handed over
there by themselves; with --accept-into it may hand devices over to here. What goes from
server to server needs to know its certificate, by --cert, --spki or --ca: one that is pinned
without hands devices over as files alone ('joinctl rekey take'). With --sha1 keys are
sealed to it by OAEP with SHA-1, where this server's token (SoftHSM) knows no other.`,
		Example: "  joinctl rekey server add joins.example.com --transport-key there.transport.pub \\\n    --statement-key there.statement.pub\n" +
			"  joinctl rekey server add joins.example.com --transport-key there.transport.pub \\\n    --statement-key there.statement.pub --url https://joins.example.com:8443 --cert there.pem",
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		in := client.NewJoinServer{Name: args[0]}
		if err := pin.apply(&in); err != nil {
			return err
		}
		j, err := api.PinJoinServer(ctx, in)
		if err != nil {
			return err
		}
		return a.done(j, "pinned %s (%s)", j.Name, j.ID)
	})
	pin.register(c)
	require(c, "transport-key")
	return c
}

func (a *app) rekeyServerChangeCommand() *cobra.Command {
	var pin pinFlags
	var name string
	c := a.command(&cobra.Command{
		Use:   "change NAME",
		Short: "Change what is pinned of a Join Server",
		Long: `Change what is pinned of a Join Server, by its name or id, for the operator: what is not
named stays. It is the same Join Server after, with its orders, as long as it signs with the
same statement key; so a new certificate, another place or another name costs nothing. A new
transport key ends the hand-over of orders that name the former one: arm them anew. So does
--sha1, which gives the key another thumbprint; --transport-key without it takes that back.`,
		Example: "  joinctl rekey server change joins.example.com --cert new.pem\n" +
			"  joinctl rekey server change joins.example.com --rename joins.example.org --url https://joins.example.org:8443",
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		j, err := findJoinServer(ctx, api, args[0])
		if err != nil {
			return err
		}
		in := client.NewJoinServer{
			Name: cmp.Or(name, j.Name), TransportKey: j.TransportKey, ReceiptKey: j.ReceiptKey, URL: j.URL, Identity: j.Identity, Theirs: j.Theirs, Ours: j.Ours,
		}
		if err := pin.apply(&in); err != nil {
			return err
		}
		if j, err = api.ChangeJoinServer(ctx, j.ID, in); err != nil {
			return err
		}
		return a.done(j, "changed %s (%s)", j.Name, j.ID)
	})
	c.Flags().StringVar(&name, "rename", "", "its new name")
	pin.register(c)
	return c
}

func (a *app) rekeyServerListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "list",
		Short:   "List pinned Join Servers",
		Example: "  joinctl rekey server list",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		return showSeq(a, api.JoinServers(ctx, client.JoinServersQuery{}), columns[client.JoinServer]{
			names: []string{"name", "id", "reached at", "transport key", "oaep", "receipts", "since"},
			cells: func(j client.JoinServer) []any {
				kid := "?"
				if key, err := seal.ParsePublicKeyDER(j.TransportKey); err == nil {
					kid = key.KID()
				}
				return []any{j.Name, j.ID, cmp.Or(j.URL, "files"), kid, map[bool]string{false: "SHA-256", true: "SHA-1"}[j.SHA1], map[bool]string{false: "none", true: "signed"}[len(j.ReceiptKey) > 0], when(j.CreatedAt, "?")}
			},
			empty: "no Join Servers; 'joinctl rekey server add' pins one",
		})
	})
}

func (a *app) rekeyServerRemoveCommand() *cobra.Command {
	var yes bool
	c := a.command(&cobra.Command{
		Use:     "remove NAME",
		Short:   "Forget a pinned Join Server",
		Long:    "Forget a pinned Join Server, by its name or id. No order may be open that names it.",
		Example: "  joinctl rekey server remove joins.example.com --yes",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		j, err := findJoinServer(ctx, api, args[0])
		if err != nil {
			return err
		}
		if err := a.confirm(yes, fmt.Sprintf("No device could be rekeyed to %s any more", j.Name), j.Name, "--yes"); err != nil {
			return err
		}
		if err := api.UnpinJoinServer(ctx, j.ID); err != nil {
			return err
		}
		return a.done(map[string]string{"server": j.ID.String()}, "%s is forgotten", j.Name)
	})
	yesFlag(c, &yes)
	return c
}

func (a *app) rekeyServerKeysCommand() *cobra.Command {
	var out string
	c := a.command(&cobra.Command{
		Use:   "keys --out NAME",
		Short: "Write this server's keys, for other Join Servers",
		Long: `Write what another Join Server pins of this one: NAME.transport.pub, to which it seals
keys, and NAME.statement.pub, which verifies tickets, hand-overs and receipts. Both PEM.`,
		Example: "  joinctl rekey server keys --out here",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		transport, err := transportKey(ctx, api, "")
		if err != nil {
			return err
		}
		k, err := api.StatementKey(ctx)
		if err != nil {
			return err
		}
		statement := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.PublicKey})
		files := map[string]string{"transport": out + ".transport.pub", "statement": out + ".statement.pub"}
		err = errors.Join(os.WriteFile(files["transport"], transport.MarshalPEM(), 0o644), os.WriteFile(files["statement"], statement, 0o644))
		if err != nil {
			return err
		}
		return a.done(files, "the keys are in %s and %s", files["transport"], files["statement"])
	})
	c.Flags().StringVar(&out, "out", "", "how the files are named")
	require(c, "out")
	return c
}
