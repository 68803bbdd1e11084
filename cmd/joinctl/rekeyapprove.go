package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"joinery/client"
	"joinery/internal/exportfile"
	"joinery/internal/rekeyfile"
	"joinery/lorawan"

	"github.com/spf13/cobra"
)

func (a *app) rekeyRequestsCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "requests",
		Short: "List orders to rekey that wait for another person",
		Long:  "List the orders to rekey of your organisation that wait for another admin's approval.",
		Example: `  joinctl rekey requests
  joinctl rekey requests --json`,
		Args: cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		return showSeq(a, api.RekeyRequests(ctx, client.RekeyRequestsQuery{}), columns[client.RekeyRequest]{
			names: []string{"when", "by", "JoinEUI", "DevEUI", "new JoinEUI", "to", "disclosed", "rekeying key", "thumbprint"},
			cells: func(r client.RekeyRequest) []any {
				o := r.Order
				return []any{when(o.At, "?"), o.By, r.JoinEUI, r.DevEUI, o.NewJoinEUI, o.To, yesNo(o.Recipient != 0), yesNo(o.RekeyKey), o.Thumbprint}
			},
			empty: "no orders wait for approval",
		})
	})
}

func (a *app) rekeyApproveCommand() *cobra.Command {
	var joinEUI, thumbprint string
	var rekeyKey bool
	c := a.command(&cobra.Command{
		Use:   "approve DEVICE --join-eui JOINEUI --thumbprint T",
		Short: "Approve, as another person, orders to rekey",
		Long: `Approve orders to rekey that another person of your organisation gave. You approve
exactly these devices, the JoinEUI at which they are to join and the key to which their
new root keys go: give what you looked at ('joinctl rekey requests'). Compare the
thumbprint with what the other Join Server's operator, or the holder of the key, told you
by another way. Where the orders hand the next rekeying keys over, too, say --rekeying-key.
All orders are armed, or none.` + deviceHelp,
		Example: `  joinctl rekey approve 0004A310001AA90A --join-eui EC656EFFFE000001 \
    --thumbprint NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs`,
		Args: cobra.MinimumNArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		eui, err := lorawan.ParseEUI64(joinEUI)
		if err != nil {
			return usagef("--join-eui: %w", err)
		}
		ids, err := deviceIDs(ctx, api, args)
		if err != nil {
			return err
		}
		done, err := api.ApproveRekey(ctx, client.RekeyApproval{Devices: ids, NewJoinEUI: eui, Thumbprint: thumbprint, RekeyKey: rekeyKey})
		if err != nil {
			return err
		}
		return a.done(done.Orders, "%d orders are armed", len(done.Orders))
	})
	c.Flags().StringVar(&joinEUI, "join-eui", "", "JoinEUI at which the devices are to join")
	c.Flags().StringVar(&thumbprint, "thumbprint", "", "of the key to which their new root keys are to go")
	c.Flags().BoolVar(&rekeyKey, "rekeying-key", false, "the orders hand the next rekeying keys over, too: whoever has one can compute all root keys that come after")
	require(c, "join-eui")
	require(c, "thumbprint")
	return c
}

func (a *app) rekeyRejectCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "reject DEVICE",
		Short:   "Reject orders to rekey that wait for another person",
		Long:    "Reject orders to rekey that wait for another person's approval; yours, or another's." + deviceHelp,
		Example: "  joinctl rekey reject 0004A310001AA90A",
		Args:    cobra.MinimumNArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		ids, err := deviceIDs(ctx, api, args)
		if err != nil {
			return err
		}
		done, err := api.RejectRekey(ctx, client.RekeyDevices{Devices: ids})
		if err != nil {
			return err
		}
		return a.done(done, "%d orders are rejected", done.Rejected)
	})
}

func (a *app) rekeyOpenCommand() *cobra.Command {
	var statement string
	var opening opening
	c := &cobra.Command{
		Use:   "open FILE --key FILE --statement-key FILE --format FORMAT --out FILE",
		Short: "Decrypt new root keys that were handed over to a recipient",
		Long: `Verify a hand-over and decrypt the new root keys in it with the recipient's private key,
on a machine of your own: no server is asked. What comes out holds root keys that anybody
can read, in a new file that only you can read. The formats are those of 'joinctl export
open': tts-csv, tts-json, chirpstack and json. --statement-key is that of the Join Server
which handed over ('joinctl rekey server keys' there).`,
		Example: `  joinctl rekey open handover.json --key private.pem --statement-key old-server.pub \
    --format chirpstack --out devices.jsonl`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return opening.run(a, func(write exportWriter) (int, error) {
				return a.openHandover(cmd.Context(), args[0], opening.key, statement, opening.out, write)
			})
		},
	}
	opening.register(c)
	c.Flags().StringVar(&statement, "statement-key", "", "PEM file of the statement key of the Join Server that handed over")
	require(c, "statement-key")
	return c
}

// openHandover decrypts the devices of a hand-over into a new file, and tells how many.
func (a *app) openHandover(ctx context.Context, path string, key keyFile, statement, out string, write exportWriter) (n int, err error) {
	private, err := a.readPrivateKey(ctx, key)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, private.Close()) }()
	err = writeSecret(out, func(w io.Writer) error {
		if err := write.begin(w); err != nil {
			return err
		}
		return readHandovers(path, statement, func(h rekeyfile.Handover) error {
			for _, d := range h.Devices {
				err := private.OpenRow(h.Seal, d.Row, func(m exportfile.Metadata, keys []exportfile.OpenedKey) error { return write.device(w, m, keys) })
				if err != nil {
					return fmt.Errorf("order %s: %w", d.Order, err)
				}
				n++
			}
			return nil
		})
	})
	return n, err
}
