package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"joinery"
	"joinery/client"
	"joinery/internal/seal"
	"joinery/lorawan"

	"github.com/spf13/cobra"
)

const importHelp = `

Rows go to the server in runs of at most 500. When it is cut off, however that
happens, the same command goes on where it stood: the server knows the file by its
hash. At the end rows that were refused are listed with their lines and the reasons,
and with --report all of them written to a file, one JSON object a line; --results
writes what became of every row, and goes on with the file of a run that was cut off.
The exit code is 3 if rows were refused.`

func (a *app) importCommand() *cobra.Command {
	c := &cobra.Command{Use: "import", Short: "Bring devices in: signed manifests, key lists"}
	c.AddCommand(a.importManifestCommand(), a.importKeysCommand(), a.importSealedCommand())
	return c
}

// importFlags are the flags of every import.
type importFlags struct {
	bind    bindingFlags
	dryRun  bool
	report  string
	results string
}

func (f *importFlags) register(c *cobra.Command) {
	f.bind.register(c, "bind-")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "check the rows and store nothing")
	c.Flags().StringVar(&f.report, "report", "", "write the rows that were refused to this file, one JSON object a line")
	c.Flags().StringVar(&f.results, "results", "", "write what became of each row to this file, one JSON object a line")
}

// begin opens path and begins its import, or finds the one that was begun. The
// file is the job's progress.
func (a *app) begin(ctx context.Context, api *client.Client, f *importFlags, path string, in client.NewImport) (*importJob, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	if _, err = io.Copy(hash, file); err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err == nil {
		in.SHA256 = hex.EncodeToString(hash.Sum(nil))
		in.DryRun = f.dryRun
		in.Binding, err = f.bind.optional()
	}
	var state client.Import
	if err == nil {
		state, err = api.BeginImport(ctx, in)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	j := &importJob{a: a, api: api, state: state, progress: newProgress(a, file)}
	j.notes.dryRun = f.dryRun
	return j, nil
}

// finish runs a job, and says what became of it.
func (a *app) finish(ctx context.Context, j *importJob, f *importFlags) (err error) {
	defer func() { _ = j.progress.file.Close() }()
	if j.notes.refused.all, err = newLineFile(f.report); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if j.notes.results, err = openResults(f.results, j.state.Next); err != nil {
		return errors.Join(fmt.Errorf("results: %w", err), j.notes.refused.all.close())
	}
	if err = j.run(ctx); err == nil {
		err = a.report(ctx, j)
	}
	return joinErrors(err, j.notes.refused.all.close(), j.notes.results.close())
}

// joinErrors is errors.Join, but leaves an only error as it is: its kind decides
// how the program ends.
func joinErrors(errs ...error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

func (a *app) importManifestCommand() *cobra.Command {
	c := a.manifestImportCommand("joinctl import manifest")
	c.Use = "manifest FILE --mac-version VERSION"
	return c
}

// keyListFlags stand for what a key list does not say.
type keyListFlags struct{ joinEUI, version, root10 string }

func (k *keyListFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&k.joinEUI, "join-eui", "", "JoinEUI of rows that do not say")
	c.Flags().StringVar(&k.version, "mac-version", "", "LoRaWAN version of rows that do not say")
	c.Flags().StringVar(&k.root10, "root10", "", "root key of 1.0.x devices whose row has two: NwkKey or AppKey")
}

func (k *keyListFlags) options() (o seal.KeyListOptions, err error) {
	if k.joinEUI != "" {
		joinEUI, err := lorawan.ParseEUI64(k.joinEUI)
		if err != nil {
			return o, usagef("--join-eui: %w", err)
		}
		o.JoinEUI = &joinEUI
	}
	if k.version != "" {
		if o.MACVersion, err = lorawan.ParseMACVersion(k.version); err != nil {
			return o, usagef("--mac-version: %w", err)
		}
	}
	if k.root10 != "" && k.root10 != seal.RootNwkKey && k.root10 != seal.RootAppKey {
		return o, usagef("--root10: want %s or %s", seal.RootNwkKey, seal.RootAppKey)
	}
	o.Root10 = k.root10
	return o, nil
}

const keyListHelp = `

The list is a CSV with a header line and the columns JoinEUI, DevEUI, MACVersion,
AppKey and, for 1.1 devices, NwkKey; optional are UsedDevNonces (numbers separated by
spaces or |) and JoinNonceFloor, from a former Join Server. The Things Stack's CSV and
JSON are read, too.`

func (a *app) importKeysCommand() *cobra.Command {
	var f importFlags
	var k keyListFlags
	var transport string
	c := a.command(&cobra.Command{
		Use:   "keys FILE",
		Short: "Import devices with their root keys, encrypted on this machine",
		Long: `Import ordinary devices with their root keys. Every key is encrypted to the server on
this machine, before it leaves it.` + keyListHelp + importHelp,
		Example: `  joinctl import keys devices.csv
  joinctl import keys tts.csv --mac-version 1.0.3 --bind-net-id 000013 --bind-as-id as.example.com
  joinctl import keys devices.csv --report refused.jsonl`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		opt, err := k.options()
		if err != nil {
			return err
		}
		to, err := transportKey(ctx, api, transport)
		if err != nil {
			return err
		}
		j, err := a.begin(ctx, api, &f, args[0], client.NewImport{Kind: string(joinery.ImportKeyList)})
		if err != nil {
			return err
		}
		list, err := seal.KeyList(j.progress, to, opt)
		if err != nil {
			_ = j.progress.file.Close()
			return err
		}
		defer list.Close()
		header := client.SealHeader(list.Header())
		j.header, j.next = &header, keyRows(list.Next)
		return a.finish(ctx, j, &f)
	})
	k.register(c)
	registerTransportKey(c, &transport)
	f.register(c)
	return c
}

func (a *app) importSealedCommand() *cobra.Command {
	var f importFlags
	c := a.command(&cobra.Command{
		Use:   "sealed FILE",
		Short: "Import a key list that 'joinctl seal keys' encrypted",
		Long:  "Import a key list that 'joinctl seal keys' encrypted to this server, perhaps on another machine." + importHelp,
		Example: `  joinctl seal keys devices.csv --to transport.pub --out devices.sealed
  joinctl import sealed devices.sealed --bind-net-id 60002A --bind-as-id as.example.com`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		j, err := a.begin(ctx, api, &f, args[0], client.NewImport{Kind: string(joinery.ImportKeyList)})
		if err != nil {
			return err
		}
		list, err := seal.NewFileReader(j.progress)
		if err != nil {
			_ = j.progress.file.Close()
			return err
		}
		header := client.SealHeader(list.Header())
		j.header, j.next = &header, keyRows(list.Next)
		return a.finish(ctx, j, &f)
	})
	f.register(c)
	return c
}

// keyRows turns rows of a key list into rows of an import.
func keyRows(next func() (seal.SealedRow, error)) func() (row, error) {
	return func() (row, error) {
		r, err := next()
		if bad, ok := errors.AsType[*seal.RowError](err); ok {
			return row{bad: &client.BadRow{Line: bad.Line, Reason: cut(bad.Reason, 256)}, size: 300}, nil
		}
		if err != nil {
			return row{}, err
		}
		return keyRow(r), nil
	}
}

func keyRow(r seal.SealedRow) row {
	key := client.SealedKeyRow{
		Line: r.Line, JoinEUI: r.JoinEUI, DevEUI: r.DevEUI, MACVersion: r.MACVersion, NwkKey: r.NwkKey, AppKey: r.AppKey, Root10: r.Root10,
		UsedDevNonces: r.UsedDevNonces, JoinNonceFloor: r.JoinNonceFloor, NextRJCount1: r.NextRJCount1, MAC: r.MAC,
	}
	size := 460 + 6*len(r.UsedDevNonces)
	for _, f := range r.Former {
		key.Former = append(key.Former, client.FormerNonces(f))
		size += 80 + 6*len(f.UsedDevNonces)
	}
	return row{key: &key, size: size}
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// report lists the rows that were refused, and says with errPartial that there
// were some.
func (a *app) report(ctx context.Context, j *importJob) error {
	state, n := j.state, &j.notes
	if state.Failed > 0 && !n.dryRun {
		for r, err := range j.api.ImportErrors(ctx, state.ID, client.ImportErrorsQuery{}) {
			if err == nil {
				err = n.refused.add(r)
			}
			if err != nil {
				return err
			}
		}
	}
	refused := &n.refused
	err := a.show(map[string]any{
		"import": state, "refused": append([]client.RowResult{}, refused.first...), "refusedOmitted": refused.omitted(),
		"warnings": append([]client.RowResult{}, n.warnings.first...),
	}, func() error {
		what := map[bool]string{false: "imported", true: "nothing was stored; it would be"}[n.dryRun]
		a.sayf("%s: %d new, %d there already, %d refused\n", what, state.Created, state.Unchanged, state.Failed)
		if !n.dryRun && state.Created > 0 {
			a.sayf("their labels: joinctl label sheet --import %s --out labels.pdf\n", state.ID)
		}
		for _, r := range refused.first {
			if err := a.printf("%s\n", describeRow(r, r.Reason)); err != nil {
				return err
			}
		}
		if more := refused.omitted(); more > 0 {
			a.sayf("and %d more; --report FILE has them all\n", more)
		}
		for _, r := range n.warnings.first {
			a.sayf("warning: %s\n", describeRow(r, r.Warning))
		}
		return nil
	})
	if err == nil && refused.count > 0 {
		return errPartial
	}
	return err
}
