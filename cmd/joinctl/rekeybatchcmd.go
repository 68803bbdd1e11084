package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"joinery"
	"joinery/client"

	"github.com/spf13/cobra"
)

func (a *app) rekeyBatchCommand() *cobra.Command {
	c := &cobra.Command{Use: "batch", Short: "Orders to rekey many devices: how they stand, and approving them"}
	c.AddCommand(a.rekeyBatchListCommand(), a.rekeyBatchShowCommand(), a.rekeyBatchApproveCommand(), a.rekeyBatchRejectCommand(), a.rekeyBatchWithdrawCommand())
	return c
}

func (a *app) rekeyBatchListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use: "list", Short: "List batches, newest first", Example: "  joinctl rekey batch list", Args: cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		return showSeq(a, api.RekeyBatches(ctx, client.RekeyBatchesQuery{}), columns[client.RekeyBatch]{
			names: []string{"id", "state", "devices", "armed", "failed", "JoinEUI", "to", "requested by", "at"},
			cells: func(b client.RekeyBatch) []any {
				return []any{b.ID, b.State, b.Devices, b.Armed, b.Failed, b.NewJoinEUI, b.To, b.RequestedBy, when(b.RequestedAt, "?")}
			},
			empty: "no batches; 'joinctl rekey arm --all' or '--file' makes one",
		})
	})
}

// batchAct makes a command on one batch.
func (a *app) batchAct(c *cobra.Command, do func(ctx context.Context, api *client.Client, id joinery.RekeyBatchID) error) *cobra.Command {
	c.Args = cobra.ExactArgs(1)
	c.Long += "\n\nBATCH is an id: rkb_…"
	return a.command(c, func(ctx context.Context, api *client.Client, args []string) error {
		id, err := joinery.ParseRekeyBatchID(args[0])
		if err != nil {
			return usagef("batch: %w", err)
		}
		return do(ctx, api, id)
	})
}

func (a *app) rekeyBatchShowCommand() *cobra.Command {
	var devices bool
	var wait time.Duration
	c := a.batchAct(&cobra.Command{
		Use: "show BATCH", Short: "Show a batch, and what became of each device",
		Long: `Show an order to rekey many devices: how far it is, who asked, and to which key. With
--devices list its devices instead, with the order of each, or why it has none. With
--wait first wait until the server is done with it, at most so long.`,
		Example: `  joinctl rekey batch show rkb_0c3kd5vqmr2hx
  joinctl rekey batch show rkb_0c3kd5vqmr2hx --devices --json`,
	}, func(ctx context.Context, api *client.Client, id joinery.RekeyBatchID) error {
		b, err := api.RekeyBatch(ctx, id)
		if err == nil && wait > 0 {
			within, cancel := context.WithTimeout(ctx, wait)
			b, err = a.awaitBatch(within, api, b)
			cancel()
		}
		if err != nil {
			return err
		}
		if devices {
			return showSeq(a, api.RekeyBatchDevices(ctx, id, client.RekeyBatchDevicesQuery{}), columns[client.RekeyBatchItem]{
				names: []string{"#", "JoinEUI", "DevEUI", "state", "order", "reason"},
				cells: func(i client.RekeyBatchItem) []any {
					order := ""
					if i.Order != 0 {
						order = i.Order.String()
					}
					return []any{strconv.FormatInt(i.Index, 10), i.JoinEUI, i.DevEUI, i.State, order, i.Reason}
				},
				empty: "no devices",
			})
		}
		return a.show(b, func() error {
			decided, approve := "", ""
			if b.DecidedBy != "" {
				decided = b.DecidedBy + ", " + when(b.DecidedAt, "?")
			}
			if b.State == "requested" {
				approve = fmt.Sprintf("joinctl rekey batch approve %s --join-eui %s --thumbprint %s --digest %s%s", b.ID, b.NewJoinEUI, b.Thumbprint, b.Digest,
					map[bool]string{true: " --rekeying-key"}[b.RekeyKey])
			}
			return a.facts("state", b.State, "JoinEUI", b.NewJoinEUI, "to", b.To, "disclosed", yesNo(b.Recipient != 0), "rekeying key", yesNo(b.RekeyKey),
				"thumbprint", b.Thumbprint, "devices", b.Devices, "digest", b.Digest, "armed", b.Armed, "failed", b.Failed,
				"each order is sent for days", b.Days, "requested by", b.RequestedBy+", "+when(b.RequestedAt, "?"), "needs another person", yesNo(b.NeedsApproval),
				"decided by", decided, "note", b.Note, "ended", when(b.EndedAt, ""), "ends by itself", when(b.ExpiresAt, ""), "another admin approves it with", approve)
		})
	})
	c.Flags().BoolVar(&devices, "devices", false, "list its devices")
	c.Flags().DurationVar(&wait, "wait", 0, "wait so long until the server is done with it, as 10m")
	return c
}

func (a *app) rekeyBatchApproveCommand() *cobra.Command {
	var in client.RekeyBatchApproval
	var joinEUI string
	c := a.batchAct(&cobra.Command{
		Use: "approve BATCH --join-eui JOINEUI --thumbprint T --digest D", Short: "Approve a batch as another person",
		Long: `Approve an order to rekey many devices that another person of your organisation gave.
You approve exactly the devices of that digest, the JoinEUI at which they are to join and
the key of that thumbprint: look at them ('joinctl rekey batch show', '--devices'), and
compare the thumbprint with what its holder told you by another way. Where it hands the
next rekeying keys over, too, say --rekeying-key. It needs a signed-in admin; an API key
cannot. The server then arms the devices.`,
		Example: `  joinctl rekey batch approve rkb_0c3kd5vqmr2hx --join-eui EC656EFFFE000001 \
    --thumbprint NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs \
    --digest 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08`,
	}, func(ctx context.Context, api *client.Client, id joinery.RekeyBatchID) (err error) {
		if in.NewJoinEUI, err = parseEUIFlag("--join-eui", joinEUI); err != nil {
			return err
		}
		b, err := api.ApproveRekeyBatch(ctx, id, in)
		if err != nil {
			return err
		}
		return a.done(b, "approved; the server arms %d devices: joinctl rekey batch show %s", b.Devices, b.ID)
	})
	f := c.Flags()
	f.StringVar(&joinEUI, "join-eui", "", "JoinEUI at which the devices are to join")
	f.StringVar(&in.Thumbprint, "thumbprint", "", "of the key to which their new root keys are to go")
	f.StringVar(&in.Digest, "digest", "", "digest of the devices")
	f.BoolVar(&in.RekeyKey, "rekeying-key", false, "it hands the next rekeying keys over, too: whoever has one can compute all root keys that come after")
	for _, name := range []string{"join-eui", "thumbprint", "digest"} {
		require(c, name)
	}
	return c
}

func (a *app) rekeyBatchRejectCommand() *cobra.Command {
	var in client.RekeyBatchRejection
	c := a.batchAct(&cobra.Command{
		Use: "reject BATCH", Short: "Reject a batch that waits for another person",
		Long: "Reject an order to rekey many devices that waits for approval. It ends, and no device is armed.", Example: `  joinctl rekey batch reject rkb_0c3kd5vqmr2hx --note "not yet"`,
	}, func(ctx context.Context, api *client.Client, id joinery.RekeyBatchID) error {
		b, err := api.RejectRekeyBatch(ctx, id, in)
		if err != nil {
			return err
		}
		return a.done(b, "rejected")
	})
	c.Flags().StringVar(&in.Note, "note", "", "why")
	return c
}

func (a *app) rekeyBatchWithdrawCommand() *cobra.Command {
	return a.batchAct(&cobra.Command{
		Use: "withdraw BATCH", Short: "End a batch before it is done",
		Long: `End an order to rekey many devices before it is done. Devices that were armed stay so:
'joinctl rekey cancel --batch BATCH' cancels their orders.`,
		Example: "  joinctl rekey batch withdraw rkb_0c3kd5vqmr2hx",
	}, func(ctx context.Context, api *client.Client, id joinery.RekeyBatchID) error {
		b, err := api.WithdrawRekeyBatch(ctx, id)
		if err != nil {
			return err
		}
		return a.done(b, "withdrawn; %d devices were armed", b.Armed)
	})
}
