package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"

	"joinery"
	"joinery/client"
	"joinery/internal/rekeyfile"
	"joinery/internal/seal"
	"joinery/lorawan"

	"github.com/spf13/cobra"
)

func (a *app) rekeyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rekey",
		Short: "Have devices derive new root keys and join at another Join Server",
		Long: `A device whose element can be rekeyed derives new root keys inside it and joins at
another Join Server with them. The way: 'rekey server add' pins that Join Server, 'rekey
arm' gives the order, and this server hands the new root keys over; once they are accepted
there ('rekey expect'), the device's next join tells the device, and a receipt comes back.
A Join Server that cannot be reached gets 'rekey handover' as a file, and 'rekey accept'
takes its receipt. At the bench 'rekey ticket' and 'rekey results' take the place of the
join. Where the organisation's export policy wants another person, the order waits for
'rekey approve'. Many devices go as one batch: 'rekey arm --all' or '--file', and 'rekey
batch'.`,
	}
	c.AddCommand(a.rekeyRequestsCommand(), a.rekeyApproveCommand(), a.rekeyRejectCommand(), a.rekeyOpenCommand(), a.rekeyBatchCommand())
	c.AddCommand(a.rekeyProfileCommand(), a.rekeyArmCommand(), a.rekeyStatusCommand(), a.rekeyCancelCommand(), a.rekeyConfirmCommand(),
		a.rekeyTicketCommand(), a.rekeyResultsCommand(), a.rekeyHandoverCommand(), a.rekeyUnpackCommand(), a.rekeyReceiptCommand(),
		a.rekeyAcceptCommand(), a.rekeyServerCommand(), a.rekeyExpectCommand(), a.rekeyExpectationsCommand(), a.rekeyUnexpectCommand(),
		a.rekeyArrivalsCommand(), a.rekeyTakeCommand())
	return c
}

func (a *app) rekeyProfileCommand() *cobra.Command {
	var profile string
	var s rekeySelection
	c := a.command(&cobra.Command{
		Use:   "profile [DEVICE] --profile S",
		Short: "Say how a device rekeys",
		Long: `Say how a device rekeys: S, by one AES encryption under a rekeying key for each new
key; M, by the DeriveKey command of the ATECC608 family; or none. This is its owner's
word, for where neither the element's signed manifest nor who imported it says how; by
it alone each order is sent three times, since a device that cannot rekey loses the
network's list of channels with each.` + rekeyManyHelp + deviceHelp,
		Example: `  joinctl rekey profile 0004A310001AA90A --profile S
  joinctl rekey profile --file devices.txt --profile S`,
	}, func(ctx context.Context, api *client.Client, args []string) error {
		return a.rekeyEach(ctx, api, &s, args, "it is noted how they rekey", func(p picked) error {
			return api.SetRekeyProfile(ctx, p.id, client.RekeyProfile{Profile: profile})
		})
	})
	s.register(c, true)
	c.Flags().StringVar(&profile, "profile", "", "none, S or M")
	require(c, "profile")
	return c
}

func (a *app) rekeyArmCommand() *cobra.Command {
	var joinEUI, to, recipient string
	var days uint32
	var yes, rekeyKey bool
	var s rekeySelection
	c := a.command(&cobra.Command{
		Use:   "arm [DEVICE] --join-eui JOINEUI --to SERVER",
		Short: "Order devices to derive new root keys and join at another Join Server",
		Long: `Order a device to derive new root keys and to join at another Join Server. Each of its
join-accepts carries the instruction until the order is confirmed, cancelled or expires;
in that accept the network's list of channels is left out. Old keys are kept and served
all the while. The old Join Server could compute the new root keys as long as it has the
rekeying key; see docs/handover.md. A chip of profile M cannot obey a join-accept before
it was given its authorising MAC: 'joinctl rekey ticket' has it.

Many devices, up to 100,000, are one batch: those that are named, if several; those in a
file (--file, one a line); or all of the organisation (--all, which --from-join-eui,
--dev-eui and --status narrow). The server arms one after another, and this command waits
for it and tells what became of each; it may be ended meanwhile ('joinctl rekey batch
show'). One that cannot be armed keeps no other out, and the exit code is 3. The same
command again gives nobody a second order.

With --recipient the new root keys go to a key of your organisation's instead ('joinctl
export recipient list'; RSA): its holder reads them, and the devices say for ever that
they were disclosed. Where the export policy wants another person, the order waits for
'joinctl rekey approve', or 'joinctl rekey batch approve'.` + deviceHelp,
		Example: `  joinctl rekey arm 0004A310001AA90A --join-eui EC656EFFFE000001 --to joins.example.com
  joinctl rekey arm --file devices.txt --join-eui EC656EFFFE000001 --to joins.example.com --days 30
  joinctl rekey arm --all --from-join-eui 70B3D57ED0000000 --join-eui EC656EFFFE000001 \
    --to joins.example.com
  joinctl rekey arm 0004A310001AA90A --join-eui EC656EFFFE000001 --recipient "safe of Ann" --yes`,
	}, func(ctx context.Context, api *client.Client, args []string) error {
		if err := s.check(args); err != nil {
			return err
		}
		eui, err := lorawan.ParseEUI64(joinEUI)
		if err != nil {
			return usagef("--join-eui: %w", err)
		}
		in := client.NewRekeyOrder{NewJoinEUI: eui, Days: days, RekeyKey: rekeyKey}
		if to, err = a.rekeyTarget(ctx, api, to, recipient, &in.To, &in.Recipient); err != nil {
			return err
		}
		if recipient != "" {
			count := map[bool]string{true: "all devices that are selected", false: fmt.Sprintf("%d devices", len(args))}[s.many()]
			what := fmt.Sprintf("The new root keys of %s would be readable to the holder of %s, which the devices say for ever", count, to)
			if err := a.confirm(yes, what, to, "--yes"); err != nil {
				return err
			}
		}
		if s.many() || len(args) > 1 {
			return a.armMany(ctx, api, in, &s, args)
		}
		return a.armOne(ctx, api, in, args[0], to)
	})
	s.register(c, false)
	yesFlag(c, &yes)
	c.Flags().StringVar(&recipient, "recipient", "", "instead of --to: name, id or thumbprint of a recipient of your organisation's")
	c.Flags().StringVar(&joinEUI, "join-eui", "", "JoinEUI at which they are to join")
	c.Flags().StringVar(&to, "to", "", "name or id of the pinned Join Server ('joinctl rekey server list')")
	c.Flags().Uint32Var(&days, "days", 0, "for how long the order is sent (default 90)")
	c.Flags().BoolVar(&rekeyKey, "rekeying-key", false, "hand the next rekeying key over, too, so that they can be rekeyed from there; whoever has it can compute all root keys that come after")
	require(c, "join-eui")
	c.MarkFlagsOneRequired("to", "recipient")
	c.MarkFlagsMutuallyExclusive("to", "recipient")
	return c
}

// armOne orders one device.
func (a *app) armOne(ctx context.Context, api *client.Client, in client.NewRekeyOrder, arg, to string) error {
	d, err := findDevice(ctx, api, arg)
	if err != nil {
		return err
	}
	if d.Disclosed {
		a.sayf("warning: a root key of %s was disclosed; whoever has it can forge instructions\n", deviceName(d))
	}
	o, err := api.ArmRekey(ctx, d.ID, in)
	if err != nil {
		return fmt.Errorf("%s: %w", deviceName(d), err)
	}
	if d.RekeyProfile == joinery.RekeyM.String() {
		a.sayf("profile M: this chip obeys a join-accept only once the device has its authorising MAC; where it has not, 'joinctl rekey ticket %s' has both, for the bench\n", arg)
	}
	orders := []client.RekeyOrder{o}
	if o.State == string(joinery.RekeyRequested) {
		also := map[bool]string{true: " --rekeying-key"}[in.RekeyKey]
		return a.done(orders, "the order waits for another admin: 'joinctl rekey approve %s --join-eui %s --thumbprint %s%s'", arg, in.NewJoinEUI, o.Thumbprint, also)
	}
	next := fmt.Sprintf("hand its new root keys over before it joins: 'joinctl rekey handover %s --to %q --out FILE'", arg, to)
	switch {
	case in.Recipient != 0:
		next = fmt.Sprintf("write its new root keys into a file before it joins: 'joinctl rekey handover %s --recipient %q --out FILE'", arg, to)
	case o.Passage != nil:
		next = fmt.Sprintf("this server hands its new root keys over by itself, and tells the device once they are accepted there: 'joinctl rekey status %s' says how that goes", arg)
	}
	return a.done(orders, "%s is armed for %s at %s; %s", deviceName(d), in.NewJoinEUI, clean(to), next)
}

// rekeyTarget finds where new root keys go, a Join Server or a recipient, sets its id
// and gives its name.
func (a *app) rekeyTarget(ctx context.Context, api *client.Client, to, recipient string, server *joinery.JoinServerID, id *joinery.RecipientID) (string, error) {
	if recipient != "" {
		r, err := findRecipient(ctx, api, recipient)
		*id = r.ID
		return r.Name, err
	}
	j, err := findJoinServer(ctx, api, to)
	*server = j.ID
	return j.Name, err
}

func (a *app) rekeyCancelCommand() *cobra.Command {
	var s rekeySelection
	c := a.command(&cobra.Command{
		Use:   "cancel [DEVICE]",
		Short: "Send the instruction no more",
		Long:  "Send the instruction no more. What was sent may still be obeyed, and the device is served whatever it did." + rekeyManyHelp + deviceHelp,
		Example: `  joinctl rekey cancel 0004A310001AA90A
  joinctl rekey cancel --batch rkb_0c3kd5vqmr2hx`,
	}, func(ctx context.Context, api *client.Client, args []string) error {
		return a.rekeyEach(ctx, api, &s, args, "cancelled", func(p picked) error {
			if p.order != 0 { // what somebody ordered since is not the batch's
				r, err := api.Rekeying(ctx, p.id)
				if err != nil {
					return err
				}
				if len(r.Orders) > 0 && r.Orders[0].ID != p.order {
					return fmt.Errorf("it has a later order, %s, which is not of this batch: 'joinctl rekey cancel %s' cancels that", r.Orders[0].ID, p.name)
				}
			}
			return api.CancelRekey(ctx, p.id)
		})
	})
	s.register(c, true)
	return c
}

func (a *app) rekeyConfirmCommand() *cobra.Command {
	var yes bool
	c := a.deviceAct(&cobra.Command{
		Use:   "confirm DEVICE",
		Short: "Say that a device joined at the other Join Server",
		Long: `Say, as its owner, that a device joined at the other Join Server. Its joins are refused
here from then on, until it is armed anew. A receipt says it better: 'joinctl rekey accept'.` + deviceHelp,
		Example: "  joinctl rekey confirm 0004A310001AA90A --yes",
	}, "confirmed", func(ctx context.Context, api *client.Client, d client.Device) error {
		if err := a.confirm(yes, fmt.Sprintf("%s would not be served here any more", deviceName(d)), d.DevEUI.String(), "--yes"); err != nil {
			return err
		}
		return api.ConfirmRekey(ctx, d.ID)
	})
	yesFlag(c, &yes)
	return c
}

// deviceIDs finds devices.
func deviceIDs(ctx context.Context, api *client.Client, args []string) (ids []joinery.DeviceID, err error) {
	for _, arg := range args {
		d, err := findDevice(ctx, api, arg)
		if err != nil {
			return nil, err
		}
		ids = append(ids, d.ID)
	}
	return ids, nil
}

// outFlag is where a file of rekeying goes.
func outFlag(c *cobra.Command, out *string) {
	c.Flags().StringVar(out, "out", "", "file to write")
	require(c, "out")
}

func (a *app) writeRekeyFile(path string, f client.RekeyFile, format string, args ...any) error {
	if err := os.WriteFile(path, f.File, 0o600); err != nil {
		return err
	}
	return a.done(map[string]string{"file": path}, format, args...)
}

func (a *app) rekeyTicketCommand() *cobra.Command {
	var out string
	var s rekeySelection
	c := a.command(&cobra.Command{
		Use:   "ticket [DEVICE] --out FILE",
		Short: "Write orders into a signed ticket for the bench",
		Long: `Write the open orders of devices into a ticket, signed by the server, that a tool at the
bench replays onto elements. From then on each may have been obeyed. A ticket of more than
200 devices has several parts, one behind the other in the file.` + rekeyManyHelp + deviceHelp,
		Example: `  joinctl rekey ticket 0004A310001AA90A --out ticket.json
  joinctl rekey ticket --batch rkb_0c3kd5vqmr2hx --out ticket.json
  joinsim element rekey ticket.json --results results.json`,
	}, func(ctx context.Context, api *client.Client, args []string) error {
		n, left, err := a.rekeyParts(ctx, api, &s, args, out, func(ids []joinery.DeviceID, leaveOut bool) (client.RekeyFile, error) {
			return api.MakeRekeyTicket(ctx, client.NewRekeyTicket{Devices: ids, LeaveOut: leaveOut})
		})
		if err != nil {
			return err
		}
		return a.wroteParts(out, n, left, "a ticket for %d devices is in %s", n, out)
	})
	s.register(c, true)
	outFlag(c, &out)
	return c
}

func (a *app) rekeyResultsCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "results FILE",
		Short:   "Take in what the bench made of a ticket",
		Long:    "Take in the results file of a ticket: orders that were obeyed are confirmed.",
		Example: "  joinctl rekey results results.json",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		total, failed := client.Confirmed{}, 0
		err := eachPart(args[0], func(text []byte) error {
			r, err := rekeyfile.ReadResults(text)
			if err != nil {
				return err
			}
			in := []client.RekeyResult{}
			for _, v := range r.Results {
				id, err := joinery.ParseRekeyID(v.Order)
				if err != nil {
					return fmt.Errorf("order: %w", err)
				}
				if !v.Rekeyed {
					failed++
					a.sayf("%s was not rekeyed: %s\n", v.DevEUI, clean(v.Error))
				}
				in = append(in, client.RekeyResult{Order: id, DevEUI: v.DevEUI, Rekeyed: v.Rekeyed, Error: cut(v.Error, 500)})
			}
			for run := range slices.Chunk(in, partDevices) {
				done, err := api.TakeRekeyResults(ctx, client.RekeyResults{Results: run})
				if err != nil {
					return fmt.Errorf("%w; %d orders before are confirmed: give the same file again", err, total.Confirmed)
				}
				total.Confirmed += done.Confirmed
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := a.done(total, "%d orders are confirmed, %d devices were not rekeyed", total.Confirmed, failed); err != nil || failed == 0 {
			return err
		}
		return errPartial
	})
}

func (a *app) rekeyHandoverCommand() *cobra.Command {
	var to, recipient, out string
	var s rekeySelection
	c := a.command(&cobra.Command{
		Use:   "handover [DEVICE] --to SERVER --out FILE",
		Short: "Seal the new root keys of devices to the other Join Server",
		Long: `Seal the root keys to which the orders of devices lead to the Join Server that they
name. The file opens there and nowhere else; it can be made again as often as it is lost.
There, 'joinctl rekey unpack' makes a key list of it. Where the orders name a recipient
of your organisation's, --recipient says so, and the holder of its private key opens the
file: 'joinctl rekey open'. A hand-over of more than 200 devices has several parts, one
behind the other in the file.` + rekeyManyHelp + deviceHelp,
		Example: `  joinctl rekey handover 0004A310001AA90A --to joins.example.com --out handover.json
  joinctl rekey handover --batch rkb_0c3kd5vqmr2hx --to joins.example.com --out handover.json
  joinctl rekey handover 0004A310001AA90A --recipient "safe of Ann" --out handover.json`,
	}, func(ctx context.Context, api *client.Client, args []string) error {
		var in client.NewHandover
		name, err := a.rekeyTarget(ctx, api, to, recipient, &in.To, &in.Recipient)
		if err != nil {
			return err
		}
		n, left, err := a.rekeyParts(ctx, api, &s, args, out, func(ids []joinery.DeviceID, leaveOut bool) (client.RekeyFile, error) {
			in.Devices, in.LeaveOut = ids, leaveOut
			return api.MakeHandover(ctx, in)
		})
		if err != nil {
			return err
		}
		return a.wroteParts(out, n, left, "the new root keys of %d devices are in %s, sealed to %s", n, out, name)
	})
	s.register(c, true)
	c.Flags().StringVar(&to, "to", "", "name or id of the pinned Join Server")
	c.Flags().StringVar(&recipient, "recipient", "", "instead of --to: name, id or thumbprint of the recipient that the orders name")
	c.MarkFlagsOneRequired("to", "recipient")
	c.MarkFlagsMutuallyExclusive("to", "recipient")
	outFlag(c, &out)
	return c
}

func (a *app) rekeyUnpackCommand() *cobra.Command {
	var key, out string
	c := &cobra.Command{
		Use:   "unpack FILE --key KEY --out FILE",
		Short: "Make a key list of what another Join Server handed over",
		Long: `Verify a hand-over and write its devices as a sealed key list, which 'joinctl import
sealed' takes in. KEY is the statement key of the Join Server that it comes from, by a way
that you trust ('joinctl rekey server keys' there). Of a hand-over in several parts each
becomes a key list of its own: FILE, FILE.2, FILE.3 and so on. 'joinctl rekey take' takes
all of them at once.`,
		Example: `  joinctl rekey unpack handover.json --key old-server.pub --out handover.sealed
  joinctl import sealed handover.sealed --bind-net-id 000013 --bind-as-id as.example.com`,
		Args: cobra.ExactArgs(1),
	}
	c.RunE = func(_ *cobra.Command, args []string) error {
		devices, parts := 0, 0
		err := readHandovers(args[0], key, func(h rekeyfile.Handover) error {
			var list bytes.Buffer
			w, err := seal.NewFileWriter(&list, h.Seal)
			if err != nil {
				return err
			}
			for _, d := range h.Devices {
				if err := w.Write(d.Row); err != nil {
					return err
				}
			}
			name := out
			if parts++; parts > 1 {
				name = fmt.Sprintf("%s.%d", out, parts)
			}
			devices += len(h.Devices)
			return errors.Join(w.Flush(), os.WriteFile(name, list.Bytes(), 0o600))
		})
		if err != nil {
			return err
		}
		return a.done(map[string]any{"file": out, "devices": devices, "parts": parts}, "%d devices are in %s%s; 'joinctl import sealed' takes them in", devices, out,
			map[bool]string{true: fmt.Sprintf(" and %d more files behind it", parts-1)}[parts > 1])
	}
	c.Flags().StringVar(&key, "key", "", "PEM file of the other Join Server's statement key")
	require(c, "key")
	outFlag(c, &out)
	return c
}

// readHandovers reads the parts of a hand-over that the key in a PEM file signed.
func readHandovers(path, keyFile string, do func(rekeyfile.Handover) error) error {
	trusted, err := readPublicDER(keyFile)
	if err != nil {
		return err
	}
	return eachPart(path, func(text []byte) error {
		var h rekeyfile.Handover
		if _, err := rekeyfile.Open(text, rekeyfile.FormatHandover, trusted, &h); err != nil {
			return err
		}
		return do(h)
	})
}

// readPublicDER reads a public key from a PEM file.
func readPublicDER(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("%s: want one PEM block of type PUBLIC KEY", path)
	}
	return block.Bytes, nil
}

func (a *app) rekeyReceiptCommand() *cobra.Command {
	var key, out string
	c := a.command(&cobra.Command{
		Use:   "receipt HANDOVER --key KEY --out FILE",
		Short: "Have this server sign which devices of a hand-over joined here",
		Long: `Have this server sign which devices of a hand-over joined here. The receipt goes back to
the Join Server that handed them over. Devices that did not join yet are left out; ask
again later.`,
		Example: "  joinctl rekey receipt handover.json --key old-server.pub --out receipt.json",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		file, devices, joined := client.RekeyFile{}, 0, 0
		err := readHandovers(args[0], key, func(h rekeyfile.Handover) error {
			devices += len(h.Devices)
			in := client.ArrivedDevices{Devices: []client.ArrivedDevice{}}
			for _, d := range h.Devices {
				here, err := findDevice(ctx, api, d.Row.JoinEUI.String()+"/"+d.Row.DevEUI.String())
				if err != nil {
					return err
				}
				in.Devices = append(in.Devices, client.ArrivedDevice{Device: here.ID, Order: d.Order, Cookie: d.Cookie})
			}
			f, err := api.MakeReceipts(ctx, in)
			if err != nil {
				return err
			}
			var r rekeyfile.Receipt
			if _, err := rekeyfile.Open(f.File, rekeyfile.FormatReceipt, nil, &r); err != nil {
				return err
			}
			joined += len(r.Joins)
			file.File = append(append(file.File, f.File...), '\n') // a part for each of the hand-over
			return nil
		})
		if err != nil {
			return err
		}
		later := ""
		if joined < devices {
			later = "; give the command again when the others joined"
		}
		return a.writeRekeyFile(out, file, "%d of %d devices joined here; the receipt is in %s, for 'joinctl rekey accept' at the other Join Server%s", joined, devices, out, later)
	})
	c.Flags().StringVar(&key, "key", "", "PEM file of the other Join Server's statement key")
	require(c, "key")
	outFlag(c, &out)
	return c
}

func (a *app) rekeyAcceptCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "accept RECEIPT",
		Short:   "Confirm orders by another Join Server's receipt",
		Long:    "Confirm orders by a receipt, which the Join Server that they name must have signed.",
		Example: "  joinctl rekey accept receipt.json",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		total := client.Confirmed{}
		err := eachPart(args[0], func(text []byte) error {
			done, err := api.TakeReceipts(ctx, client.RekeyFile{File: text})
			total.Confirmed += done.Confirmed
			return err
		})
		if err != nil {
			return fmt.Errorf("%w; %d orders before are confirmed", err, total.Confirmed)
		}
		return a.done(total, "%d orders are confirmed", total.Confirmed)
	})
}
