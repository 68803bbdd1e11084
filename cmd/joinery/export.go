package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"joinery"
	"joinery/client"
	"joinery/internal/config"
	"joinery/internal/daemon"
	"joinery/internal/exportfile"
	"joinery/internal/harden"
	"joinery/internal/keyring"
	"joinery/lorawan"
)

func newExport() *cobra.Command {
	return group(&cobra.Command{
		Use:   "export",
		Short: "Wrap root keys for the recipients of exports that were approved",
		Long: `The part of an export that needs keys. Owners ask for exports with joinctl export;
what was approved waits for this command, which is the one process that opens keys
for it, and never the server. Where the server's configuration says so (export.automatic)
the server starts it by itself.`,
	}, newExportRun())
}

func newExportRun() *cobra.Command {
	var only string
	var leaveOut bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Do the exports that wait, and end",
		Long: `Fetches from the running server, over its operator socket, the devices of approved
exports, one page after another, wraps their root keys for the recipient and hands
them in. For keys that derive from a master key the server's own key file is enough;
for imported ones it opens the custody file, in this process alone. Where keys are in
hardware tokens it starts joinery-hsm, which opens the server's token and that of the
custody key; the tokens wrap the keys, which are never readable outside of them.

It may be ended at any point and goes on where it was: what was handed in stays, and
the same device is never disclosed twice. An export that no key at hand can wrap for
its recipient fails, and says why. Devices whose keys are under a custody key, or
derive from a master key, that is not at hand stay waiting, the organisation is told
why, and the exit status is 1; with --leave-out those are left out of the export,
unless there is no custody key at hand at all. Run as root or as the server's own user.`,
		Example: `  joinery export run --config /etc/joinery/joinery.yaml --custody-file /media/stick/custody.age \
    --custody-passphrase-file /media/other/custody.passphrase
  joinery export run --config /etc/joinery/joinery.yaml --custody-token joinery-custody --custody-pin-file /media/stick/custody.pin`,
		Args: cobra.NoArgs,
	}
	path := configFlag(cmd)
	named := custodyFlags(cmd)
	cmd.Flags().StringVar(&only, "export", "", "do this export alone: exp_…")
	cmd.Flags().BoolVar(&leaveOut, "leave-out", false, "leave devices out whose keys are under a custody or master key that is not there")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		c, err := config.Load(*path)
		if err != nil {
			return err
		}
		if err := harden.Process(); err != nil {
			return err
		}
		custodian, err := daemon.OpenCustodian(cmd.Context(), c, *named, daemon.ToExport)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, custodian.Close()) }()
		api, err := client.New(client.Options{Socket: c.API.Socket})
		if err != nil {
			return err
		}
		defer api.Close()
		x := &exporting{api: api, custodian: custodian, out: cmd.OutOrStdout(), progress: cmd.ErrOrStderr(), leaveOut: leaveOut}
		return x.run(cmd.Context(), only)
	}
	return cmd
}

// custodyCommand is how the server starts this command for itself; nil where its
// configuration does not say so.
func custodyCommand(c config.Config, configFile string) []string {
	program, err := os.Executable()
	if err != nil || !c.Export.Automatic {
		return nil
	}
	if configFile, err = filepath.Abs(configFile); err != nil {
		return nil
	}
	return []string{program, "export", "run", "--leave-out", "--config", configFile}
}

// exporting is one run of the custody process.
type exporting struct {
	api           *client.Client
	custodian     keyring.Custodian
	out, progress io.Writer
	leaveOut      bool  // devices whose key is not there, rather than have them wait
	left          int64 // devices that wait on
	why           error // why, of one of them
}

func (x *exporting) run(ctx context.Context, only string) error {
	jobs, err := again(ctx, func() ([]client.CustodyExport, error) { return x.api.CustodyExports(ctx) })
	if err != nil {
		return err
	}
	var errs []error
	done := 0
	for _, j := range jobs {
		if only != "" && j.Export.ID.String() != only {
			continue
		}
		if err := x.do(ctx, j); err != nil {
			if ctx.Err() != nil {
				return err
			}
			errs = append(errs, fmt.Errorf("%s: %w", j.Export.ID, err)) // others do not wait for it
			continue
		}
		done++
	}
	if x.left > 0 {
		errs = append(errs, fmt.Errorf("%d devices wait on: %w", x.left, x.why))
	}
	fmt.Fprintf(x.out, "%d of %d exports were worked on\n", done, len(jobs))
	return errors.Join(errs...)
}

// do works on one export: first line, then page after page.
func (x *exporting) do(ctx context.Context, j client.CustodyExport) error {
	h, to, err := x.begin(ctx, j)
	if errors.Is(err, exportfile.ErrWrapping) {
		return x.tell(ctx, j.Export.ID, client.CustodyWord{Why: err.Error(), Failed: true})
	}
	if err != nil {
		return err
	}
	left := x.left
	if err := x.pages(ctx, j.Export.ID, h, to); err != nil {
		return err
	}
	if n := x.left - left; n > 0 {
		return x.tell(ctx, j.Export.ID, client.CustodyWord{Why: fmt.Sprintf("%d devices wait: %v", n, x.why)})
	}
	return nil
}

// tell has the organisation know why nothing becomes of an export, or of devices.
func (x *exporting) tell(ctx context.Context, id joinery.ExportID, word client.CustodyWord) error {
	_, err := again(ctx, func() (client.Export, error) { return x.api.TellExport(ctx, id, word) })
	if isOver(err) {
		return nil
	}
	if err == nil && word.Failed {
		fmt.Fprintf(x.progress, "%s failed: %s\n", id, word.Why)
	}
	return err
}

func (x *exporting) pages(ctx context.Context, id joinery.ExportID, h exportfile.Header, to exportfile.Recipient) error {
	for after := ""; ; {
		q := client.CustodyExportDevicesQuery{After: after, Limit: client.MaxCustodyDevices}
		page, err := again(ctx, func() (client.Page[client.CustodyExportItem], error) {
			return x.api.CustodyExportDevicesPage(ctx, id, q)
		})
		if isOver(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := x.page(ctx, id, h, to, page.Items); err != nil {
			return err
		}
		if after = page.Next; after == "" {
			return nil
		}
	}
}

// isOver tells that an export is done, or withdrawn meanwhile.
func isOver(err error) bool {
	p, ok := errors.AsType[*client.Problem](err)
	return ok && p.Code == joinery.CodeConflict
}

// begin fixes the first line of the file, or takes that of a run before.
func (x *exporting) begin(ctx context.Context, j client.CustodyExport) (h exportfile.Header, to exportfile.Recipient, err error) {
	if to, err = exportfile.ParseRecipient([]byte(j.RecipientKey)); err != nil {
		return h, to, err
	}
	if j.Started {
		h, err = exportfile.ParseHeader([]byte(j.Header))
		return h, to, err
	}
	if err = json.Unmarshal([]byte(j.Header), &h); err != nil {
		return h, to, err
	}
	if h.Wrapping, err = exportfile.Choose(to, x.custodian.Wrappings(), exportfile.Form(j.Export.Form)); err != nil {
		return h, to, err
	}
	h.Signer = x.custodian.Signer()
	line, err := exportfile.MarshalHeader(h)
	if err != nil {
		return h, to, err
	}
	started, err := again(ctx, func() (client.CustodyExport, error) {
		return x.api.StartExport(ctx, j.Export.ID, client.CustodyStart{Header: string(line)})
	})
	if err != nil {
		return h, to, err
	}
	h, err = exportfile.ParseHeader([]byte(started.Header))
	return h, to, err
}

// maxHandIn bounds what is handed in at once, in bytes: devices that draw their
// DevNonces at random can have long lines.
const maxHandIn = 8 << 20

// rekeyedSet fills in how the root keys of a rekeyed key set follow from a master key.
func rekeyedSet(k *joinery.KeySet, item client.CustodyExportItem) error {
	if k.Origin != joinery.OriginRekeyed {
		return nil
	}
	serial, err := hex.DecodeString(item.Serial)
	if err != nil {
		return err
	}
	copy(k.Serial[:], serial)
	for _, s := range item.Steps {
		k.Steps = append(k.Steps, lorawan.Rekey{JoinEUI: s.NewJoinEUI, Cookie: s.Cookie})
	}
	return k.Rekey.UnmarshalText([]byte(item.RekeyProfile))
}

// page wraps the keys of one page and hands them in.
func (x *exporting) page(ctx context.Context, id joinery.ExportID, h exportfile.Header, to exportfile.Recipient, items []client.CustodyExportItem) error {
	if len(items) == 0 {
		return nil
	}
	in := make([]keyring.ExportIn, len(items))
	for i, item := range items {
		if err := json.Unmarshal([]byte(item.About), &in[i].About); err != nil {
			return err
		}
		k := &in[i].KeySet
		*k = joinery.KeySet{
			ID: item.KeySet, DevEUI: item.DevEUI, Master: item.Master, Generation: item.Generation,
			Origin: map[string]joinery.Origin{"derived": joinery.OriginDerived, "sealed": joinery.OriginSealed, "rekeyed": joinery.OriginRekeyed}[item.Origin],
			Nwk:    joinery.SealedRoot{Custody: item.Nwk}, App: joinery.SealedRoot{Custody: item.App},
		}
		if err := k.Root10.UnmarshalText([]byte(item.Root10)); err != nil {
			return err
		}
		if err := rekeyedSet(k, item); err != nil {
			return err
		}
	}
	out, err := x.custodian.Export(ctx, h, to, in)
	if errors.Is(err, exportfile.ErrWrapping) { // it was begun with other keys at hand
		out, err = make([]keyring.ExportOut, len(in)), nil
		for i := range out {
			out[i].Err = exportfile.ErrWrapping
		}
	}
	if err != nil {
		return err
	}
	var run []client.CustodyDone
	size := 0
	for i, made := range out {
		done, waits, err := x.judge(items[i], made)
		if err != nil {
			return err
		}
		if waits {
			continue
		}
		if size += len(done.Line); size > maxHandIn {
			if err := x.handIn(ctx, id, run); err != nil {
				return err
			}
			run, size = nil, len(done.Line)
		}
		run = append(run, done)
	}
	return x.handIn(ctx, id, run)
}

// judge says what becomes of one device: wrapped, given up, or waiting for a key
// that is not at hand.
func (x *exporting) judge(item client.CustodyExportItem, made keyring.ExportOut) (done client.CustodyDone, waits bool, err error) {
	done = client.CustodyDone{Index: item.Index, KeySet: item.KeySet}
	switch {
	case made.Err == nil:
		line, err := exportfile.MarshalDevice(made.Device)
		done.Line = string(line)
		return done, false, err
	case errors.Is(made.Err, keyring.ErrOtherCustody) || errors.Is(made.Err, keyring.ErrUnknownMaster):
		if x.leaveOut && (x.custodian.Generation() > 0 || errors.Is(made.Err, keyring.ErrUnknownMaster)) {
			done.Failed = "no-key"
			return done, false, nil
		}
		x.left++
		x.why = made.Err
		return done, true, nil
	case errors.Is(made.Err, exportfile.ErrWrapping):
		done.Failed = "not-wrappable"
		return done, false, nil
	case errors.Is(made.Err, keyring.ErrNotServed):
		done.Failed = "not-allowed"
		return done, false, nil
	}
	done.Failed = "does-not-open"
	return done, false, nil
}

func (x *exporting) handIn(ctx context.Context, id joinery.ExportID, run []client.CustodyDone) error {
	if len(run) == 0 {
		return nil
	}
	e, err := again(ctx, func() (client.Export, error) { return x.api.HandInExport(ctx, id, client.CustodyHandIn{Devices: run}) })
	if isOver(err) {
		return nil
	}
	if err == nil {
		fmt.Fprintf(x.progress, "%s: %d of %d, %d left out\n", id, e.Wrapped, e.Devices, e.Dropped)
	}
	return err
}
