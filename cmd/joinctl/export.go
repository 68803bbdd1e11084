package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"joinery"
	"joinery/client"
	"joinery/lorawan"

	"github.com/spf13/cobra"
)

func (a *app) exportCommand() *cobra.Command {
	c := &cobra.Command{Use: "export", Short: "Have root keys of your devices, or move them to another Join Server"}
	c.AddCommand(a.recipientCommand(), a.exportPolicyCommand(), a.exportRequestCommand(), a.exportListCommand(), a.exportShowCommand(),
		a.exportApproveCommand(), a.exportRejectCommand(), a.exportWithdrawCommand(), a.exportDownloadCommand(), a.exportOpenCommand(), a.exportImportCommand(), a.exportSignersCommand())
	return c
}

func (a *app) recipientCommand() *cobra.Command {
	c := &cobra.Command{Use: "recipient", Short: "Public keys to which root keys may be exported"}
	c.AddCommand(a.recipientAddCommand(), a.recipientListCommand(), a.recipientRemoveCommand())
	return c
}

func (a *app) recipientAddCommand() *cobra.Command {
	var in client.NewRecipient
	c := a.command(&cobra.Command{
		Use:   "add NAME KEYFILE",
		Short: "Register a public key to which root keys may be exported",
		Long: `Register the public key in KEYFILE: RSA of 3072 bits or more, or P-256; PEM or a JSON
Web Key. Make the pair on a machine of your own, and keep the private half there: it
alone opens what is exported. With --kind join-server it is the transport key of
another Joinery ('joinctl seal transport-key' there), which imports the devices, and
nobody can read anything in between.`,
		Example: `  openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out private.pem
  openssl pkey -in private.pem -pubout -out public.pem
  joinctl export recipient add laptop public.pem
  joinctl export recipient add other-server transport.pub --kind join-server`,
		Args: cobra.ExactArgs(2),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		text, err := os.ReadFile(args[1])
		if err != nil {
			return err
		}
		in.Name, in.Key = args[0], string(text)
		r, err := api.AddRecipient(ctx, in)
		if err != nil {
			return err
		}
		return a.done(r, "registered %s (%s), whose key has the thumbprint %s: compare that with the key's owner", r.Name, r.ID, r.Thumbprint)
	})
	c.Flags().StringVar(&in.Kind, "kind", "file", "file: its holder opens the keys; join-server: another Joinery imports them")
	c.Flags().BoolVar(&in.SHA1, "sha1", false, "the private key is in a token that knows no other OAEP than that with SHA-1")
	return c
}

func (a *app) recipientListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use: "list", Short: "List recipients", Example: "  joinctl export recipient list", Args: cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		list, err := api.Recipients(ctx)
		if err != nil {
			return err
		}
		return showList(a, list, columns[client.Recipient]{
			names: []string{"id", "name", "kind", "thumbprint", "added by", "since"},
			cells: func(r client.Recipient) []any {
				return []any{r.ID, r.Name, r.Kind, r.Thumbprint, r.AddedBy, when(r.CreatedAt, "?")}
			},
			empty: "no recipients; 'joinctl export recipient add' registers one",
		})
	})
}

func (a *app) recipientRemoveCommand() *cobra.Command {
	var yes bool
	c := a.command(&cobra.Command{
		Use: "remove RECIPIENT", Short: "Take a recipient away; what is being exported to it is withdrawn",
		Long:    "Take a recipient away, by name, thumbprint or id. What is being exported to it is\nwithdrawn, and what was wrapped deleted.",
		Example: "  joinctl export recipient remove laptop\n  joinctl export recipient remove laptop --yes", Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		r, err := findRecipient(ctx, api, args[0])
		if err != nil {
			return err
		}
		question := fmt.Sprintf("Removing %s ends what is being exported to it, and deletes what was wrapped for it", clean(r.Name))
		if err := a.confirm(yes, question, r.Name, "--yes"); err != nil {
			return err
		}
		if err := api.RemoveRecipient(ctx, r.ID); err != nil {
			return err
		}
		return a.done(r, "removed %s", r.Name)
	})
	yesFlag(c, &yes)
	return c
}

// findRecipient finds a recipient by id, name or thumbprint.
func findRecipient(ctx context.Context, api *client.Client, arg string) (client.Recipient, error) {
	list, err := api.Recipients(ctx)
	if err != nil {
		return client.Recipient{}, err
	}
	for _, r := range list {
		if r.ID.String() == arg || r.Name == arg || r.Thumbprint == arg {
			return r, nil
		}
	}
	return client.Recipient{}, fmt.Errorf("no recipient %q; 'joinctl export recipient list' lists them", clean(arg))
}

func (a *app) exportPolicyCommand() *cobra.Command {
	var approve bool
	c := a.command(&cobra.Command{
		Use:   "policy [never|auto|always]",
		Short: "Show or set when exports need another person",
		Long: `Without an argument show when exports need another person. auto, which holds where
nobody said anything: another admin approves wherever there is one. always: without
another admin nothing is exported. never: whoever may ask has it.

What is stricter holds at once. What is weaker needs the approval that an export
needs, with --approve by the other admin, and holds a day later.`,
		Example: `  joinctl export policy
  joinctl export policy always
  joinctl export policy never --approve`,
		Args: cobra.MaximumNArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) (err error) {
		var p client.ExportPolicy
		switch {
		case len(args) == 0 && approve:
			return usagef("--approve: say which rule you approve")
		case len(args) == 0:
			p, err = api.ExportPolicy(ctx)
		case approve:
			p, err = api.ApproveExportPolicy(ctx, client.NewExportPolicy{Approval: args[0]})
		default:
			p, err = api.SetExportPolicy(ctx, client.NewExportPolicy{Approval: args[0]})
		}
		if err != nil {
			return err
		}
		return a.show(p, func() error {
			next := ""
			if p.Next != "" {
				next = p.Next + " from " + when(p.NextFrom, "a day after another admin approves it") + ", proposed by " + p.ProposedBy
			}
			return a.facts("approval", p.Approval, "to come", next, "admins who can approve", p.Admins,
				"your exports need another person", yesNo(p.Needed))
		})
	})
	c.Flags().BoolVar(&approve, "approve", false, "approve the weaker rule that another admin proposed")
	return c
}

func (a *app) exportRequestCommand() *cobra.Command {
	var to, file, form, joinEUI, devEUI, status string
	var all bool
	c := a.command(&cobra.Command{
		Use:   "request [DEVICE…] --to RECIPIENT",
		Short: "Have root keys of devices exported",
		Long: `Ask for the root keys of devices, of up to 100,000: those that are named, those in a
file (--file, one a line), or all of the organisation (--all), which --join-eui,
--dev-eui and --status narrow. Suspended devices and those without service can be
exported like others.

Where the organisation's policy says so, another admin approves it first. From the
moment that keys are wrapped the devices are marked as disclosed, for ever, and every
later owner sees that.` + deviceHelp,
		Example: `  joinctl export request 0004A310001AA90A --to laptop
  joinctl export request --all --to other-server
  joinctl export request --file devices.txt --to laptop --form jwe`,
	}, func(ctx context.Context, api *client.Client, args []string) error {
		narrowed := joinEUI != "" || devEUI != "" || status != ""
		if given := boolToInt(len(args) > 0) + boolToInt(file != "") + boolToInt(all); given != 1 || narrowed && !all {
			return usagef("say which devices: name them, or --file, or --all (which --join-eui, --dev-eui and --status narrow)")
		}
		r, err := findRecipient(ctx, api, to)
		if err != nil {
			return err
		}
		in := client.NewExport{Recipient: r.ID, Form: form}
		if all {
			in.Select = &client.ExportSelection{DevEUI: devEUI, Status: status}
			if joinEUI != "" {
				if in.Select.JoinEUI, err = parseEUIFlag("--join-eui", joinEUI); err != nil {
					return err
				}
			}
		}
		e, err := a.requestExport(ctx, api, in, args, file)
		if err != nil {
			return err
		}
		return a.done(e, "%s", whatNext(e))
	})
	f := c.Flags()
	f.StringVar(&to, "to", "", "recipient: name, thumbprint or id")
	f.StringVar(&file, "file", "", "file with a device a line: JOINEUI/DEVEUI, DEVEUI or dev_…; - for standard input")
	f.BoolVar(&all, "all", false, "all devices of the organisation")
	f.StringVar(&joinEUI, "join-eui", "", "with --all: only devices with this JoinEUI")
	f.StringVar(&devEUI, "dev-eui", "", "with --all: only devices whose DevEUI begins so")
	f.StringVar(&status, "status", "", "with --all: only devices that stand so: active, unbound or suspended")
	f.StringVar(&form, "form", "", "how keys are wrapped: raw, jwe or seal; the best that there is if not said")
	_ = c.MarkFlagRequired("to") // there is such a flag
	return c
}

// parseEUIFlag reads an EUI that stands where what says.
func parseEUIFlag(what, text string) (lorawan.EUI64, error) {
	e, err := lorawan.ParseEUI64(text)
	if err != nil {
		return e, usagef("%s: %w", what, err)
	}
	return e, nil
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// requestExport names devices in as many requests as it takes.
func (a *app) requestExport(ctx context.Context, api *client.Client, in client.NewExport, args []string, file string) (client.Export, error) {
	if in.Select != nil {
		return api.RequestExport(ctx, in)
	}
	var refs []client.DeviceRef
	add := func(arg string) error {
		ref, err := deviceRefOf(ctx, api, arg)
		refs = append(refs, ref)
		return err
	}
	var err error
	if file == "" {
		for _, arg := range args {
			if err = add(arg); err != nil {
				return client.Export{}, err
			}
		}
	} else if err = a.eachLine(file, add); err != nil {
		return client.Export{}, err
	}
	first := refs[:min(len(refs), client.MaxExportDevices)]
	rest := refs[len(first):]
	in.Devices, in.More = first, len(rest) > 0
	e, err := api.RequestExport(ctx, in)
	for err == nil && len(rest) > 0 {
		a.sayf("%d of %d devices named\n", len(refs)-len(rest), len(refs))
		run := rest[:min(len(rest), client.MaxExportDevices)]
		rest = rest[len(run):]
		e, err = api.AddExportDevices(ctx, e.ID, client.MoreExportDevices{Devices: run, More: len(rest) > 0})
	}
	return e, err
}

// deviceRefOf reads how people write a device. One that says neither id nor JoinEUI
// is asked for.
func deviceRefOf(ctx context.Context, api *client.Client, arg string) (client.DeviceRef, error) {
	if id, err := joinery.ParseDeviceID(arg); err == nil {
		return client.DeviceRef{Device: id}, nil
	}
	if joinText, devText, both := strings.Cut(arg, "/"); both {
		joinEUI, err := parseEUIFlag("device: JoinEUI", joinText)
		if err != nil {
			return client.DeviceRef{}, err
		}
		devEUI, err := parseEUIFlag("device: DevEUI", devText)
		return client.DeviceRef{JoinEUI: joinEUI, DevEUI: devEUI}, err
	}
	d, err := findDevice(ctx, api, arg)
	return client.DeviceRef{Device: d.ID}, err
}

// eachLine calls do with each line of a file that is neither empty nor a comment.
func (a *app) eachLine(path string, do func(string) error) error {
	in := a.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	lines := bufio.NewScanner(in)
	n, some := 0, false
	for lines.Scan() {
		n++
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		some = true
		if err := do(text); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if !some {
		return usagef("the file names no device")
	}
	return nil
}

// whatNext says where an export stands, and what comes next.
func whatNext(e client.Export) string {
	head := fmt.Sprintf("%s, %d devices to %s: ", e.ID, e.Devices, e.RecipientName)
	switch {
	case e.WaitsFor == "approval":
		return head + "it waits for another admin of the organisation: joinctl export show " + e.ID.String()
	case e.State == "failed":
		return head + "nothing of it could be exported: " + clean(e.Note)
	case e.WaitsFor == "custody-key" && e.Note != "":
		return head + fmt.Sprintf("%d of %d are done; %s", e.Wrapped+e.Dropped, e.Devices, clean(e.Note))
	case e.State == "working":
		return head + fmt.Sprintf("%d of %d are done; the others wait for the custody process and its key", e.Wrapped+e.Dropped, e.Devices)
	case e.WaitsFor == "custody-key":
		return head + "it waits for the custody key, which this server's operator or the server itself brings; then: joinctl export download " + e.ID.String() + " --out FILE"
	case e.State == "ready":
		return head + fmt.Sprintf("it is ready, with %d left out: joinctl export download %s --out FILE", e.Dropped, e.ID)
	}
	return head + "it is " + e.State
}

func (a *app) exportListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use: "list", Short: "List exports, newest first", Example: "  joinctl export list", Args: cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		return showSeq(a, api.Exports(ctx, client.ExportsQuery{}), columns[client.Export]{
			names: []string{"id", "state", "devices", "wrapped", "left out", "to", "requested by", "at"},
			cells: func(e client.Export) []any {
				state := e.State
				if e.WaitsFor != "" {
					state += ", waits for " + e.WaitsFor
				}
				return []any{e.ID, state, e.Devices, e.Wrapped, e.Dropped, e.RecipientName, e.RequestedBy, when(e.RequestedAt, "?")}
			},
			empty: "no exports; 'joinctl export request' asks for one",
		})
	})
}

const exportHelp = "\n\nEXPORT is an id: exp_…"

// exportAct makes a command on one export.
func (a *app) exportAct(c *cobra.Command, do func(ctx context.Context, api *client.Client, id joinery.ExportID) error) *cobra.Command {
	c.Args = cobra.ExactArgs(1)
	c.Long += exportHelp
	return a.command(c, func(ctx context.Context, api *client.Client, args []string) error {
		id, err := joinery.ParseExportID(args[0])
		if err != nil {
			return usagef("export: %w", err)
		}
		return do(ctx, api, id)
	})
}

func (a *app) exportShowCommand() *cobra.Command {
	var devices bool
	c := a.exportAct(&cobra.Command{
		Use: "show EXPORT", Short: "Show an export, and what comes next",
		Long: "Show an export: how far it is, who asked, and to which key. With --devices list its\ndevices instead, and why some were left out.",
		Example: `  joinctl export show exp_0c3kd5vqmr2hx
  joinctl export show exp_0c3kd5vqmr2hx --devices`,
	}, func(ctx context.Context, api *client.Client, id joinery.ExportID) error {
		if devices {
			return showSeq(a, api.ExportDevices(ctx, id, client.ExportDevicesQuery{}), columns[client.ExportItem]{
				names: []string{"#", "JoinEUI", "DevEUI", "state", "reason"},
				cells: func(i client.ExportItem) []any {
					return []any{strconv.FormatInt(i.Index, 10), i.JoinEUI, i.DevEUI, i.State, i.Reason}
				},
				empty: "no devices",
			})
		}
		e, err := api.Export(ctx, id)
		if err != nil {
			return err
		}
		return a.show(e, func() error {
			decided := ""
			if e.DecidedBy != "" {
				decided = e.DecidedBy + ", " + when(e.DecidedAt, "?")
			}
			approve := ""
			if e.WaitsFor == "approval" {
				approve = fmt.Sprintf("joinctl export approve %s --thumbprint %s --digest %s", e.ID, e.Thumbprint, e.Digest)
			}
			return a.facts("state", whatNext(e), "to", e.RecipientName+" ("+e.Kind+")", "thumbprint", e.Thumbprint, "devices", e.Devices, "digest", e.Digest,
				"wrapped", e.Wrapped, "left out", e.Dropped, "requested by", e.RequestedBy+", "+when(e.RequestedAt, "?"),
				"needs another person", yesNo(e.NeedsApproval), "decided by", decided, "note", e.Note, "signed by", e.Signer,
				"ready since", when(e.ReadyAt, ""), "ended", when(e.EndedAt, ""), "ends by itself", when(e.ExpiresAt, ""),
				"another admin approves it with", approve)
		})
	})
	c.Flags().BoolVar(&devices, "devices", false, "list its devices")
	return c
}

func (a *app) exportApproveCommand() *cobra.Command {
	var in client.ExportApproval
	c := a.exportAct(&cobra.Command{
		Use: "approve EXPORT --thumbprint T --digest D", Short: "Approve an export as another person",
		Long: `Approve an export that another person of your organisation asked for. You approve
exactly the devices of that digest and the key of that thumbprint, which 'joinctl
export show' tells: look at the devices ('--devices'), and ask the recipient for the
thumbprint of the key on another way. It needs a signed-in admin; an API key cannot.`,
		Example: `  joinctl export approve exp_0c3kd5vqmr2hx \
    --thumbprint NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs \
    --digest 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08`,
	}, func(ctx context.Context, api *client.Client, id joinery.ExportID) error {
		e, err := api.ApproveExport(ctx, id, in)
		if err != nil {
			return err
		}
		return a.done(e, "approved; %s", whatNext(e))
	})
	c.Flags().StringVar(&in.Thumbprint, "thumbprint", "", "thumbprint of the recipient's key")
	c.Flags().StringVar(&in.Digest, "digest", "", "digest of the devices")
	_ = c.MarkFlagRequired("thumbprint") // there are such flags
	_ = c.MarkFlagRequired("digest")
	return c
}

func (a *app) exportRejectCommand() *cobra.Command {
	var in client.ExportRejection
	c := a.exportAct(&cobra.Command{
		Use: "reject EXPORT", Short: "Reject an export that waits for approval",
		Long: "Reject an export that waits for approval. It ends, and nothing of it is disclosed.", Example: `  joinctl export reject exp_0c3kd5vqmr2hx --note "we do not know this key"`,
	}, func(ctx context.Context, api *client.Client, id joinery.ExportID) error {
		e, err := api.RejectExport(ctx, id, in)
		if err != nil {
			return err
		}
		return a.done(e, "rejected")
	})
	c.Flags().StringVar(&in.Note, "note", "", "why")
	return c
}

func (a *app) exportWithdrawCommand() *cobra.Command {
	return a.exportAct(&cobra.Command{
		Use: "withdraw EXPORT", Short: "End an export before it is delivered",
		Long:    "End an export before it is delivered. What was wrapped is deleted. What was disclosed\nstays known as that.",
		Example: "  joinctl export withdraw exp_0c3kd5vqmr2hx",
	}, func(ctx context.Context, api *client.Client, id joinery.ExportID) error {
		e, err := api.WithdrawExport(ctx, id)
		if err != nil {
			return err
		}
		return a.done(e, "withdrawn; %d devices were disclosed", e.Wrapped)
	})
}
