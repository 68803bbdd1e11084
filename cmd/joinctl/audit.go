package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"joinery"
	"joinery/auditlog"
	"joinery/client"

	"github.com/spf13/cobra"
)

func (a *app) auditFetchCommand() *cobra.Command {
	var f bundleFlags
	c := a.command(&cobra.Command{
		Use:   "fetch DEVICE",
		Short: "Fetch what the log says was done with a device's keys, with proofs",
		Long: `Fetch what was done with a device's keys, with proofs that it stands in the server's
log, into a file that joinctl audit verify checks without the server. Orders for many
devices at once are in it, too: who asked for an export and who approved it, with
proof that this device is one of those.

Keep the log's key, which is printed, when you meet the server first, and keep each
file or its checkpoint: from what you kept it is found when the log changes later.
With --checkpoint the file also proves that the log continues what you kept.

A former owner names the device by its id, and gets what was theirs.` + deviceHelp,
		Example: `  joinctl audit fetch 0004A310001AA90A --out bundle.json
  joinctl audit fetch 0004A310001AA90A --out new.json --checkpoint bundle.json`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		return a.fetchBundle(ctx, api, args[0], f, func(ctx context.Context, id joinery.DeviceID, q client.CustodyQuery) (client.CustodyPage, error) {
			return api.Custody(ctx, id, q)
		})
	})
	f.add(c)
	return c
}

func (a *app) provenanceCommand() *cobra.Command {
	var f bundleFlags
	c := a.command(&cobra.Command{
		Use:   "provenance DEVICE",
		Short: "Fetch the chain of a device's owners, with proofs",
		Long: `Fetch the chain of a device's owners: each change of hands from the signed manifest
entry on, when it was, whether root keys had been disclosed by then, with proofs that
it stands in the server's log. A buyer checks the file with joinctl audit verify
before paying.

Owners stand in it as commitments to their names. Yours is opened; others open theirs
to whom they like. Where you hold the device, the server first states in its log how
things stand now, which takes some seconds: so the buyer sees that nothing is left
out, and that no root key was disclosed since the last change of hands.` + deviceHelp,
		Example: `  joinctl device provenance 0004A310001AA90A --out provenance.json
  joinctl audit verify provenance.json --key log.key`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		stated := false
		return a.fetchBundle(ctx, api, args[0], f, func(ctx context.Context, id joinery.DeviceID, q client.CustodyQuery) (client.CustodyPage, error) {
			if !stated {
				stated = true
				if err := a.stateProvenance(ctx, api, id); err != nil {
					return client.CustodyPage{}, err
				}
			}
			return api.Provenance(ctx, id, q.From)
		})
	})
	f.add(c)
	return c
}

// stateProvenance has the log state how the chain of owners stands, and waits until
// that is in it. Who does not hold the device gets the chain without.
func (a *app) stateProvenance(ctx context.Context, api *client.Client, id joinery.DeviceID) error {
	err := api.StateProvenance(ctx, id)
	if code := joinery.CodeOf(err); code == joinery.CodeNotFound || code == joinery.CodeForbidden {
		a.sayf("you do not hold the device, or may not act for who does: the file does not say how things stand now\n")
		return nil
	}
	if err != nil {
		return err
	}
	const tries = 60
	for range tries {
		p, err := api.Provenance(ctx, id, 0)
		if err != nil {
			return err
		}
		if n := len(p.Entries); n > 0 && !slices.ContainsFunc(p.Entries, func(e client.CustodyEntry) bool { return e.Leaf < 0 }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
	return errors.New("the custody log does not grow now: what was stated is not in it yet; try again later")
}

type bundleFlags struct{ out, checkpoint string }

func (f *bundleFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.out, "out", "", "the file to write; it must not be there")
	c.Flags().StringVar(&f.checkpoint, "checkpoint", "", "a checkpoint, or a file of an earlier fetch, that the log is to continue")
}

// bundlePart fetches a part of a bundle.
type bundlePart func(ctx context.Context, id joinery.DeviceID, q client.CustodyQuery) (client.CustodyPage, error)

func (a *app) fetchBundle(ctx context.Context, api *client.Client, device string, f bundleFlags, part bundlePart) error {
	if f.out == "" {
		return usagef("say with --out which file to write")
	}
	var old auditlog.Checkpoint
	if f.checkpoint != "" {
		signed, _, err := readCheckpoint(f.checkpoint)
		if err != nil {
			return err
		}
		text, _, _ := strings.Cut(signed, "\n\n")
		if old, err = auditlog.ParseCheckpoint(text + "\n"); err != nil {
			return fmt.Errorf("%s: %w", f.checkpoint, err)
		}
	}
	id, err := deviceIDOf(ctx, api, device)
	if err != nil {
		return err
	}
	b, key, err := collect(ctx, id, int(old.Size), part)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(f.out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return usagef("%s is there already; name a new file with --out", f.out)
	}
	if err != nil {
		return err
	}
	b.Key = key
	if err := errors.Join(writeJSON(file, b), file.Close()); err != nil {
		return err
	}
	if a.flags.json {
		return writeJSON(a.out, map[string]any{"file": f.out, "device": b.Device, "entries": len(b.Entries), "logKey": key})
	}
	a.sayf("%d entries are in %s\nthe log's key is %s\nkeep it: take it from the server only the first time\n", len(b.Entries), f.out, key)
	return nil
}

// deviceIDOf takes an id as it is: a former owner cannot look the device up.
func deviceIDOf(ctx context.Context, api *client.Client, arg string) (joinery.DeviceID, error) {
	if strings.HasPrefix(arg, "dev_") {
		id, err := joinery.ParseDeviceID(arg)
		if err != nil {
			err = usagef("device: %w", err)
		}
		return id, err
	}
	d, err := findDevice(ctx, api, arg)
	return d.ID, err
}

// collect reads all parts into one bundle, all of them as of the first one's
// checkpoint.
func collect(ctx context.Context, id joinery.DeviceID, from int, part bundlePart) (b auditlog.Bundle, key string, err error) {
	q := client.CustodyQuery{Limit: 500}
	p, err := part(ctx, id, q)
	if err != nil {
		return b, "", err
	}
	b = auditlog.Bundle{
		Format: auditlog.BundleFormat, Kind: p.Kind, Device: p.Device.String(), JoinEUI: p.JoinEUI.String(), DevEUI: p.DevEUI.String(),
		Checkpoint: p.Checkpoint, Manifest: p.Manifest,
	}
	if p.Import != nil {
		i := auditlog.Import(*p.Import)
		b.Import = &i
	}
	for _, party := range p.Parties {
		b.Parties = append(b.Parties, auditlog.Party(party))
	}
	key, q.Size = p.Key, int(p.Size)
	if from > 0 && from < q.Size {
		again := q
		again.From = from
		proved, err := part(ctx, id, again)
		if err != nil {
			return b, "", err
		}
		if p.Kind == "provenance" {
			p, b.Checkpoint = proved, proved.Checkpoint
		}
		for _, c := range proved.Consistency {
			b.Consistency = append(b.Consistency, auditlog.Consistency(c))
		}
	}
	seen := map[string]bool{}
	for {
		for _, set := range p.Sets {
			if !seen[set.Of] {
				seen[set.Of] = true
				b.Sets = append(b.Sets, auditlog.Set(set))
			}
		}
		for _, e := range p.Entries {
			if !seen[e.ID] {
				seen[e.ID] = true
				b.Entries = append(b.Entries, auditlog.Entry(e))
			}
		}
		if p.Next == "" {
			return b, key, nil
		}
		q.After = p.Next
		if p, err = part(ctx, id, q); err != nil {
			return b, "", err
		}
	}
}

// readCheckpoint reads a checkpoint, or the bundle that holds it.
func readCheckpoint(name string) (signed string, b *auditlog.Bundle, err error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return "", nil, err
	}
	if strings.HasPrefix(strings.TrimSpace(string(content)), "{") {
		if b, err = parseBundle(content); err != nil {
			return "", nil, fmt.Errorf("%s: %w", name, err)
		}
		return b.Checkpoint, b, nil
	}
	return string(content), nil, nil
}

func parseBundle(content []byte) (*auditlog.Bundle, error) {
	b := new(auditlog.Bundle)
	if err := json.Unmarshal(content, b); err != nil {
		return nil, fmt.Errorf("want a file of joinctl audit fetch: %w", err)
	}
	return b, nil
}

func (a *app) auditVerifyCommand() *cobra.Command {
	var key, checkpoint string
	var witnesses []string
	var entries bool
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check what audit fetch or device provenance fetched, without a server",
		Long: `Check a file of joinctl audit fetch or joinctl device provenance, without asking any
server: the log's signature, that each entry stands in the log unchanged, that none
about the device is left out between others, the chain of owners, and that who asked
for an export or a rekeying, and who approved it, did so for this device. With
--checkpoint also that the log continues what you kept: entries that were taken away,
and a log that is told in two ways, are found. Without --key the log's key is that of
the earlier fetch which --checkpoint names; all then rests on that file. With --entries it lists what was done
with the device's keys, oldest first.

It ends with an error where anything is wrong. docs/audit.md says what can be seen
and what cannot.`,
		Example: `  joinctl audit verify bundle.json --key log.key
  joinctl audit verify bundle.json --key log.key --entries
  joinctl audit verify new.json --key log.key --checkpoint bundle.json
  joinctl audit verify new.json --checkpoint bundle.json`,
		Args: cobra.ExactArgs(1),
	}
	c.Flags().BoolVar(&entries, "entries", false, "list what was done, too")
	c.Flags().StringVar(&key, "key", "", "the log's key, NAME+HASH+BASE64, or a file that holds it")
	c.Flags().StringVar(&checkpoint, "checkpoint", "", "a checkpoint, or a file of an earlier fetch, that you kept")
	c.Flags().StringArrayVar(&witnesses, "witness", nil, "the key of a witness that must have signed, or a file that holds it; may be repeated")
	c.RunE = func(_ *cobra.Command, args []string) error {
		trust, err := readTrust(key, checkpoint, witnesses)
		if err != nil {
			return err
		}
		if key == "" {
			a.sayf("the log's key is %s, by %s alone: what is found rests on that file\n", trust.Key, checkpoint)
		}
		content, err := os.ReadFile(args[0])
		if err != nil {
			return err
		}
		b, err := parseBundle(content)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		r := auditlog.Verify(*b, trust)
		list := []shownEntry(nil)
		if entries {
			list = shownEntries(*b)
		}
		err = a.show(shownReport{r, list}, func() error {
			return errors.Join(a.showEntries(list), a.showReport(*b, r))
		})
		if err != nil {
			return err
		}
		if !r.OK() {
			return fmt.Errorf("%s: %d things are wrong with it", args[0], len(r.Findings))
		}
		return nil
	}
	return c
}

func readTrust(key, checkpoint string, witnesses []string) (t auditlog.Trust, err error) {
	if checkpoint != "" {
		if t.Old, t.OldBundle, err = readCheckpoint(checkpoint); err != nil {
			return t, err
		}
		if t.OldBundle != nil {
			t.Old = ""
		}
	}
	switch {
	case key != "":
		if t.Key, err = auditlog.ParseKey(fileOr(key)); err != nil {
			return t, usagef("--key: there is no file %s, or no key of a log in it: %w", clean(key), err)
		}
	case t.OldBundle != nil && t.OldBundle.Key != "": // that of the bundle to check says nothing
		if t.Key, err = auditlog.ParseKey(t.OldBundle.Key); err != nil {
			return t, usagef("%s: no key of a log is in it; say with --key which key the log has", clean(checkpoint))
		}
	default:
		return t, usagef("say with --key which key the log has: you got it from joinctl audit fetch, or from the server's /log/key; or with --checkpoint an earlier file of joinctl audit fetch, which has it")
	}
	for _, text := range witnesses {
		w, err := auditlog.NewWitness(fileOr(text))
		if err != nil {
			return t, usagef("--witness: %w", err)
		}
		t.Witnesses = append(t.Witnesses, w)
	}
	return t, nil
}

// fileOr gives the first line of the file of that name, or the name where there is
// none.
func fileOr(text string) string {
	if content, err := os.ReadFile(text); err == nil {
		text, _, _ = strings.Cut(string(content), "\n")
	}
	return text
}

func (a *app) showReport(b auditlog.Bundle, r auditlog.Report) error {
	if err := a.printf("device %s, DevEUI %s\nlog %s, %d entries\n", clean(b.Device), clean(b.DevEUI), clean(r.Checkpoint.Origin), r.Size); err != nil {
		return err
	}
	for _, name := range r.Cosigned {
		if err := a.printf("signed by witness %s\n", clean(name)); err != nil {
			return err
		}
	}
	if err := a.printf("%d entries about it: %d of other owners, %d erased, %d not in the log yet\n", r.Entries, r.Withheld, r.Erased, r.Waiting); err != nil {
		return err
	}
	if began := r.Began; began != nil {
		by := ""
		if began.By != "" {
			by = " by " + clean(began.By)
		}
		if err := a.printf("imported %s%s with %s, entry %s\n", began.At.UTC().Format("2006-01-02 15:04:05"), by, manifestText(began.Manifest), clean(began.Entry)); err != nil {
			return err
		}
	}
	for _, l := range r.Links {
		if err := a.printf("  owner %d  %s  %s from %s to %s%s\n", l.Epoch, l.Time().Format("2006-01-02 15:04:05"), clean(l.How),
			partyText(l.FromName, l.From), partyText(l.ToName, l.To), map[bool]string{true: ", root keys disclosed before"}[l.Disclosed]); err != nil {
			return err
		}
	}
	if err := a.showOrders(r.Orders); err != nil {
		return err
	}
	if err := a.showDisclosures(r); err != nil {
		return err
	}
	if st := r.Stated; st != nil {
		if err := a.printf("as of %s: owner %d has it, root keys %s\n", st.At.UTC().Format("2006-01-02 15:04:05"), st.Epoch, statedText(*st)); err != nil {
			return err
		}
	}
	for _, text := range r.Notes {
		if err := a.paragraph("", "note: "+text); err != nil {
			return err
		}
	}
	for _, f := range r.Findings {
		if err := a.paragraph("", "WRONG "+f.String()); err != nil {
			return err
		}
	}
	if r.OK() {
		return a.printf("nothing is wrong\n")
	}
	return nil
}

// showOrders says who asked for exports and rekeyings, and who approved them.
func (a *app) showOrders(orders []auditlog.Order) error {
	for _, o := range orders {
		what := "order to rekey"
		if strings.HasPrefix(o.Reference, "exp_") {
			what = "export"
		}
		of := map[bool]string{true: "this device", false: "devices; that this is one of them is not shown"}[o.Member]
		if o.Member && o.Devices > 1 {
			of = fmt.Sprintf("%d devices, of which this is one", o.Devices)
		}
		if err := a.printf("  %s %s of %s, to key %s, for %s\n", what, clean(o.Reference), of, clean(o.Key), clean(o.Org)); err != nil {
			return err
		}
		for _, s := range o.Steps {
			if err := a.printf("    %s  %s by %s (%s)\n", s.At.UTC().Format("2006-01-02 15:04:05"), clean(s.What), clean(s.By), clean(s.Entry)); err != nil {
				return err
			}
		}
	}
	return nil
}

// showDisclosures says who could read root keys, and by whose word.
func (a *app) showDisclosures(r auditlog.Report) error {
	for _, d := range r.Disclosures {
		by := "by this server"
		switch {
		case d.ToldBy != "" && d.By != "":
			by = fmt.Sprintf("by %s, told by %s", clean(d.By), clean(d.ToldBy))
		case d.ToldBy != "":
			by = "told by " + clean(d.ToldBy)
		}
		if d.Former {
			by += ", of former root keys"
		}
		to := map[string]string{"file": "the holder of key", "join-server": "the Join Server with transport key", "": "key"}[d.Kind]
		if err := a.printf("  disclosed  %s to %s %s, %s (%s)\n", d.At.UTC().Format("2006-01-02 15:04:05"), to, clean(d.Recipient), by, clean(d.Reference)); err != nil {
			return err
		}
	}
	for _, t := range r.Told {
		what := map[bool]string{true: "root keys disclosed", false: "root keys not disclosed"}[t.Disclosed]
		if t.Outside {
			what += "; they came to it from elsewhere"
		}
		if err := a.printf("  told by %s, with key %s, as of %s: %s\n", clean(t.Server), clean(t.Signer), t.AsOf.UTC().Format("2006-01-02 15:04:05"), what); err != nil {
			return err
		}
	}
	return nil
}

// statedText says how root keys stood. That nobody told of a disclosure is not that
// there was none.
func statedText(s auditlog.Stated) string {
	switch {
	case s.Disclosed:
		return "DISCLOSED"
	case s.Outside:
		return "came FROM OUTSIDE, as in a list, whose maker could read them; not disclosed by this server"
	}
	return "not disclosed by this server"
}

// manifestText names a manifest entry.
func manifestText(hash string) string {
	if hash == "" {
		return "no manifest entry"
	}
	return "the manifest entry of SHA-256 " + clean(hash)
}

// partyText names an owner, or the beginning of what stands for the name.
func partyText(name, commitment string) string {
	if name != "" {
		return fmt.Sprintf("%q", clean(name))
	}
	return "(" + clean(commitment[:min(12, len(commitment))]) + "…)"
}

func (a *app) auditEraseCommand() *cobra.Command {
	var reason string
	var yes bool
	c := a.command(&cobra.Command{
		Use:   "erase ENTRY",
		Short: "Erase the content of an entry of the custody log",
		Long: `Erase payload and salt of an entry for ever, as the law may ask for personal data.
The log stays valid: its record stays and says nothing any more, and the erasure is
an entry itself. An erased join is no session any longer. ENTRY is audit_ and a
number, or the id of an activation. It is for the operator.`,
		Example: `  joinctl audit erase audit_1234 --reason "erasure asked for on 3 May" --yes`,
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		if err := a.confirm(yes, "The content of "+clean(args[0])+" is erased for ever", args[0], "--yes"); err != nil {
			return err
		}
		if err := api.EraseLogEntry(ctx, client.LogErasure{Entry: args[0], Reason: reason}); err != nil {
			return err
		}
		return a.done(map[string]string{"entry": args[0]}, "%s is erased", args[0])
	})
	yesFlag(c, &yes)
	c.Flags().StringVar(&reason, "reason", "", "why; it stays in the log, so name no person")
	return c
}

func (a *app) auditCeremonyCommand() *cobra.Command {
	var key string
	c := a.command(&cobra.Command{
		Use:   "ceremony REPORT",
		Short: "Enter the signed report of a ceremony of keys into the custody log",
		Long: `Enter the signed report of a ceremony of keys into the custody log: its hash, what was
made and changed, and who was there. The server checks the signature, and that it is
by the audit key whose fingerprint the participants wrote down. Keep the report: the
log has its hash only. It is for the operator.`,
		Example: `  joinctl audit ceremony acme-2026.report.json \
    --fingerprint 0c3c6d1f2a4b5e68790c1d2e3f405162738495a6b7c8d9eaf0b1c2d3e4f50617`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		if key == "" {
			return usagef("say with --fingerprint what the participants wrote down; joinery ceremony verify shows the report's")
		}
		report, err := os.ReadFile(args[0])
		if err != nil {
			return err
		}
		entered, err := api.EnterCeremony(ctx, client.CeremonyReport{Report: report, Key: key})
		if err != nil {
			return err
		}
		return a.show(entered, func() error {
			return a.printf("ceremony %s is in the log, its report by SHA-256 %s\n", clean(entered.Name), entered.SHA256)
		})
	})
	c.Flags().StringVar(&key, "fingerprint", "", "of the audit key that signed it")
	return c
}
