package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"joinery"
	"joinery/client"
	"joinery/lorawan"

	"github.com/spf13/cobra"
)

func (a *app) disputeCommand() *cobra.Command {
	c := &cobra.Command{Use: "dispute", Short: "Dispute who holds a device, or a lock, with the device at hand"}
	c.AddCommand(a.disputeChallengeCommand(), a.disputeOpenCommand(), a.disputeListCommand(), a.disputeShowCommand(),
		a.disputeWithdrawCommand(), a.disputeDecideCommand())
	return c
}

const disputeHelp = `

The device is written as JOINEUI/DEVEUI, both from its label.`

// bothEUIs reads JOINEUI/DEVEUI.
func bothEUIs(arg string) (joinEUI, devEUI lorawan.EUI64, err error) {
	joinText, devText, _ := strings.Cut(arg, "/")
	if joinEUI, err = lorawan.ParseEUI64(joinText); err == nil {
		devEUI, err = lorawan.ParseEUI64(devText)
	}
	if err != nil {
		return joinEUI, devEUI, usagef("want JOINEUI/DEVEUI, 16 hexadecimal digits each")
	}
	return joinEUI, devEUI, nil
}

func (a *app) disputeChallengeCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "challenge JOINEUI/DEVEUI",
		Short: "Get something for the device's element to sign",
		Long: `Get a challenge for 'joinctl dispute open'. Have the element sign the digest with the
device key, in slot 1. It is good once, for 15 minutes.` + disputeHelp,
		Example: "  joinctl dispute challenge 70B3D57ED0000000/0004A310001AA90A",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		joinEUI, devEUI, err := bothEUIs(args[0])
		if err != nil {
			return err
		}
		c, err := api.Challenge(ctx, client.NewChallenge{JoinEUI: joinEUI, DevEUI: devEUI})
		if err != nil {
			return err
		}
		return a.show(c, func() error {
			return a.facts("challenge", base64.StdEncoding.EncodeToString(c.Challenge), "digest", c.Digest, "for", c.Organisation, "until", when(c.ExpiresAt, "?"))
		})
	})
}

// evidenceFlags are the ways to speak for a claimant.
type evidenceFlags struct {
	signWith, challenge, signature, token, statement string
}

func (a *app) disputeOpenCommand() *cobra.Command {
	var f evidenceFlags
	c := a.command(&cobra.Command{
		Use:   "open JOINEUI/DEVEUI",
		Short: "Dispute who holds a device, or the lock of the binding of your own",
		Long: `Dispute who holds a device, or the lock that a network put on the binding of your own.

The strongest evidence is a signature of the device key in its secure element, which
shows that you have the device: --sign-with runs a program of yours with the digest in
hexadecimal as its last argument and reads the signature from its output; or sign the
digest of 'joinctl dispute challenge' and give --challenge and --signature-file. A
signature is r and s, 32 bytes each, as bytes, hexadecimal or base64. For a device
without a device key give --owner-token-file.

With such a signature the lock of your own device's binding ends at once. Everything
else the server's operator decides.` + disputeHelp,
		Example: `  joinctl dispute open 70B3D57ED0000000/0004A310001AA90A --sign-with ./sign-with-slot-1
  joinctl dispute open 70B3D57ED0000000/0004A310001AA90A --challenge "$CHALLENGE" --signature-file sig.bin
  joinctl dispute open 70B3D57ED0000000/0004A310001AA90A --owner-token-file token.txt \
      --statement 'Bought second-hand, invoice 4711'`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		in := client.NewDispute{Statement: f.statement}
		var err error
		if in.JoinEUI, in.DevEUI, err = bothEUIs(args[0]); err != nil {
			return err
		}
		if err := a.evidence(ctx, api, f, &in); err != nil {
			return err
		}
		r, err := api.OpenDispute(ctx, in)
		if err != nil {
			return err
		}
		return a.show(r, func() error {
			if r.Unlocked {
				a.sayf("%s: the network's lock is gone; 'joinctl bind' says which network may join it\n", args[0])
				return nil
			}
			a.sayf("the operator decides; 'joinctl dispute show %s' says how it stands\n", r.Dispute.ID)
			return a.showDispute(*r.Dispute)
		})
	})
	c.Flags().StringVar(&f.signWith, "sign-with", "", "program that signs the digest which it gets as its last argument, and prints the signature")
	c.Flags().StringVar(&f.challenge, "challenge", "", "challenge of 'joinctl dispute challenge'")
	c.Flags().StringVar(&f.signature, "signature-file", "", "file with the signature of its digest; - for standard input")
	c.Flags().StringVar(&f.token, "owner-token-file", "", "file with the owner token; - for standard input")
	c.Flags().StringVar(&f.statement, "statement", "", "what the operator should know")
	c.PreRunE = func(*cobra.Command, []string) error {
		if (f.challenge == "") != (f.signature == "") {
			return usagef("--challenge and --signature-file go together")
		}
		given := 0
		for _, way := range []string{f.signWith, f.challenge, f.token} {
			if way != "" {
				given++
			}
		}
		if given > 1 {
			return usagef("give one of --sign-with, --challenge and --owner-token-file")
		}
		return nil
	}
	return c
}

// evidence fills in what speaks for the claimant.
func (a *app) evidence(ctx context.Context, api *client.Client, f evidenceFlags, in *client.NewDispute) (err error) {
	switch {
	case f.signWith != "":
		c, err := api.Challenge(ctx, client.NewChallenge{JoinEUI: in.JoinEUI, DevEUI: in.DevEUI})
		if err != nil {
			return err
		}
		fields := strings.Fields(f.signWith)
		if len(fields) == 0 {
			return usagef("--sign-with: want a program")
		}
		cmd := exec.CommandContext(ctx, fields[0], append(fields[1:], c.Digest)...)
		cmd.Stderr = a.err
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("--sign-with: %w", err)
		}
		in.Challenge = c.Challenge
		in.Signature, err = parseSignature(out)
		return err
	case f.challenge != "":
		if in.Challenge, err = base64.StdEncoding.DecodeString(f.challenge); err != nil {
			return usagef("--challenge: want it in base64, as 'joinctl dispute challenge' prints it")
		}
		out, err := a.readSmall(f.signature)
		if err != nil {
			return fmt.Errorf("signature: %w", err)
		}
		in.Signature, err = parseSignature(out)
		return err
	case f.token != "":
		in.OwnerToken, err = a.readSecretLine(f.token, "owner token")
	}
	return err
}

func (a *app) readSmall(path string) ([]byte, error) {
	in := a.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	return io.ReadAll(io.LimitReader(in, maxSecretFile))
}

// sizeSignature is the length of r ‖ s of P-256, in bytes.
const sizeSignature = 64

// parseSignature reads a signature as bytes, hexadecimal or base64.
func parseSignature(b []byte) ([]byte, error) {
	if len(b) == sizeSignature {
		return b, nil
	}
	text := string(bytes.TrimSpace(b))
	for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.StdEncoding.DecodeString} {
		if signature, err := decode(text); err == nil && len(signature) == sizeSignature {
			return signature, nil
		}
	}
	return nil, fmt.Errorf("signature: want r and s, 32 bytes each, as bytes, hexadecimal or base64; not DER")
}

func (a *app) showDispute(d client.Dispute) error {
	return a.facts("dispute", d.ID, "state", d.State, "about", d.About, "device", d.JoinEUI.String()+"/"+d.DevEUI.String(), "device id", d.Device,
		"claimant", orgOr(d.Claimant), "holder", orgOr(d.Holder), "evidence", d.Evidence, "statement", d.Statement,
		"opened", when(d.OpenedAt, "?"), "decided", when(d.DecidedAt, ""), "note", d.Note)
}

// orgOr is empty for the side that is not told.
func orgOr(id joinery.OrgID) string { return idOr(id, "") }

func (a *app) disputeListCommand() *cobra.Command {
	var open bool
	c := a.command(&cobra.Command{
		Use:     "list",
		Short:   "List your disputes, and those about your devices",
		Example: "  joinctl dispute list --open\n  joinctl dispute list --json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		return showSeq(a, api.Disputes(ctx, client.DisputesQuery{Open: open}), columns[client.Dispute]{
			names: []string{"dispute", "state", "about", "JoinEUI", "DevEUI", "evidence", "claimant", "holder", "opened"},
			cells: func(d client.Dispute) []any {
				return []any{d.ID, d.State, d.About, d.JoinEUI, d.DevEUI, d.Evidence, idOr(d.Claimant, "-"), idOr(d.Holder, "-"), when(d.OpenedAt, "?")}
			},
			empty: "no disputes",
		})
	})
	c.Flags().BoolVar(&open, "open", false, "only those that are not decided")
	return c
}

func parseDispute(arg string) (joinery.DisputeID, error) {
	id, err := joinery.ParseDisputeID(arg)
	if err != nil {
		return id, usagef("dispute: %w; 'joinctl dispute list' lists them", err)
	}
	return id, nil
}

func (a *app) disputeShowCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use: "show DISPUTE", Short: "Show one dispute", Example: "  joinctl dispute show dsp_0c3kd5vqmr2hx", Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		id, err := parseDispute(args[0])
		if err != nil {
			return err
		}
		d, err := api.Dispute(ctx, id)
		if err != nil {
			return err
		}
		return a.show(d, func() error { return a.showDispute(d) })
	})
}

func (a *app) disputeWithdrawCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use: "withdraw DISPUTE", Short: "Withdraw a dispute of yours", Example: "  joinctl dispute withdraw dsp_0c3kd5vqmr2hx", Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		id, err := parseDispute(args[0])
		if err != nil {
			return err
		}
		if err := api.WithdrawDispute(ctx, id); err != nil {
			return err
		}
		return a.done(map[string]string{"dispute": id.String()}, "%s: withdrawn", id)
	})
}

func (a *app) disputeDecideCommand() *cobra.Command {
	var grant, reject, yes bool
	var note string
	c := a.command(&cobra.Command{
		Use:   "decide DISPUTE (--grant | --reject)",
		Short: "Decide a dispute, as the operator",
		Long: `Decide a dispute. A claimant who is granted a device becomes its owner at once, with a
new owner token; its binding ends, locked or not. About a lock only the binding ends.
Both sides read the note.`,
		Example: `  joinctl dispute decide dsp_0c3kd5vqmr2hx --reject --note 'The invoice is in the name of the holder.'
  joinctl dispute decide dsp_0c3kd5vqmr2hx --grant --yes`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		id, err := parseDispute(args[0])
		if err != nil {
			return err
		}
		d, err := api.Dispute(ctx, id)
		if err != nil {
			return err
		}
		if grant {
			question := fmt.Sprintf("Granting it takes %s/%s from %s", d.JoinEUI, d.DevEUI, idOr(d.Holder, "its holder"))
			if d.About == "lock" {
				question = fmt.Sprintf("Granting it ends the binding that the network of %s/%s locked", d.JoinEUI, d.DevEUI)
			}
			if err := a.confirm(yes, question, d.DevEUI.String(), "--yes"); err != nil {
				return err
			}
		}
		d, err = api.DecideDispute(ctx, id, client.Decision{Grant: grant, Note: note})
		if err != nil {
			return err
		}
		return a.show(d, func() error { return a.showDispute(d) })
	})
	c.Flags().BoolVar(&grant, "grant", false, "the claimant is right")
	c.Flags().BoolVar(&reject, "reject", false, "the claimant is not")
	yesFlag(c, &yes)
	c.Flags().StringVar(&note, "note", "", "what both sides should know")
	c.PreRunE = func(*cobra.Command, []string) error {
		if grant == reject {
			return usagef("give --grant or --reject")
		}
		return nil
	}
	return c
}
