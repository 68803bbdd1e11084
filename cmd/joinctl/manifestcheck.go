package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	"joinery"
	"joinery/client"
	"joinery/manifest"

	"github.com/spf13/cobra"
)

// manifestCheckFlags are the flags of `manifest check`.
type manifestCheckFlags struct {
	signer  signerFlags
	report  string
	results string
}

func (a *app) manifestCheckCommand() *cobra.Command {
	var f manifestCheckFlags
	c := &cobra.Command{
		Use:   "check FILE",
		Short: "Verify a manifest on this machine, and import nothing",
		Long: `Verify every entry of a manifest on this machine: signature, device key and
certificates, identifiers. With --cert no server is asked: the file is checked
against that signer, and --root and --family say the rest as for 'joinctl signer add'.
Without it, against the signers that the server trusts, and their ranges.

What only the server knows, such as whether an element is there already, shows with
'joinctl manifest import --dry-run'. A device list of The Things Stack (CSV or JSON)
is looked up: which of its devices are there. The exit code is 3 if something is
wrong with an entry, or a listed device is not there.`,
		Example: `  joinctl manifest check manifest.json
  joinctl manifest check manifest.json --cert factory.crt --root factory-root.crt
  joinctl manifest check microchip.json --family microchip \
      --cert log-signer-003.crt --root root-ca-002.crt
  joinctl manifest check devices.csv`,
		Args: cobra.ExactArgs(1),
	}
	c.RunE = func(cmd *cobra.Command, args []string) error { return a.check(cmd.Context(), &f, args[0]) }
	f.signer.register(c)
	c.Flags().StringVar(&f.report, "report", "", "write what is wrong to this file, one JSON object a line")
	c.Flags().StringVar(&f.results, "results", "", "write what became of each entry to this file, one JSON object a line")
	return c
}

func (a *app) check(ctx context.Context, f *manifestCheckFlags, path string) (err error) {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // it was only read
	j := manifestCheck{progress: newProgress(a, file)}
	if j.refused.all, err = newLineFile(f.report); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if j.results, err = newLineFile(f.results); err != nil {
		return errors.Join(fmt.Errorf("results: %w", err), j.refused.all.close())
	}
	if checkIsManifest(path) == nil {
		err = a.checkManifest(ctx, f, &j)
	} else {
		err = a.checkList(ctx, &j)
	}
	if err == nil {
		err = a.reportCheck(&j)
	}
	return joinErrors(err, j.refused.all.close(), j.results.close())
}

// manifestCheck is a check on its way.
type manifestCheck struct {
	progress          *progress
	good              uint64
	refused, warnings rowList
	results           *lineFile
}

// take notes what became of one row.
func (j *manifestCheck) take(r client.RowResult) error {
	if err := j.results.write(r); err != nil {
		return err
	}
	if r.Warning != "" {
		if err := j.warnings.add(r); err != nil {
			return err
		}
	}
	if joinery.RowStatus(r.Status).Refused() {
		return j.refused.add(r)
	}
	j.good++
	return nil
}

// statusGood is the status of what was checked and is in order.
const statusGood = "good"

func (a *app) reportCheck(j *manifestCheck) error {
	err := a.show(map[string]any{
		"good": j.good, "refusedCount": j.refused.count, "refused": append([]client.RowResult{}, j.refused.first...),
		"warnings": append([]client.RowResult{}, j.warnings.first...),
	}, func() error {
		a.sayf("%d good, %d refused\n", j.good, j.refused.count)
		for _, r := range j.refused.first {
			if err := a.printf("%s\n", describeRow(r, r.Reason)); err != nil {
				return err
			}
		}
		if more := j.refused.omitted(); more > 0 {
			a.sayf("and %d more; --report FILE has them all\n", more)
		}
		for _, r := range j.warnings.first {
			a.sayf("warning: %s\n", describeRow(r, r.Warning))
		}
		return nil
	})
	if err == nil && j.refused.count > 0 {
		return errPartial
	}
	return err
}

// pins is the signers that a check goes by. Several organisations may have pinned one
// certificate, each with rules and ranges of its own.
type pins map[manifest.SignerID][]pin

type pin struct {
	*manifest.Signer
	// joinEUIs and devEUIs bound what it may provision; the zero ranges bound
	// nothing.
	joinEUIs, devEUIs joinery.EUIRange
}

// refuses gives why the signer may not provision an element, "" if it may.
func (p pin) refuses(e manifest.Element) string {
	switch none := (joinery.EUIRange{}); {
	case p.joinEUIs == none:
		return ""
	case !p.joinEUIs.Contains(e.JoinEUI):
		return "its signer may not provision this JoinEUI"
	case !p.devEUIs.Contains(e.DevEUI):
		return "its signer may not provision this DevEUI"
	}
	return ""
}

// pinned makes the pins of a check: of the flags, or of the server.
func (a *app) pinned(ctx context.Context, f *manifestCheckFlags) (pins, error) {
	if f.signer.certificate != "" {
		der, roots, err := f.signer.read()
		if err != nil {
			return nil, err
		}
		s := joinery.Signer{DER: der, Roots: roots, Family: manifest.Family(f.signer.family), SerialSuffix: f.signer.suffix}
		if len(roots) == 0 && s.Family == manifest.FamilyMicrochip {
			return nil, usagef("--root: family microchip needs the root certificate of its device certificates")
		}
		pinned, err := s.Pinned()
		if err != nil {
			return nil, err
		}
		return pins{pinned.ID(): {{Signer: pinned}}}, nil
	}
	api, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer api.Close()
	signers, err := api.Signers(ctx)
	if err != nil {
		return nil, err
	}
	found := pins{}
	for _, s := range signers {
		joinEUIs, devEUIs := joinery.EUIRange(s.JoinEUIs), joinery.EUIRange(s.DevEUIs)
		pinned, err := joinery.Signer{
			DER: s.Certificate, Roots: s.Roots, Family: manifest.Family(s.Family), SerialSuffix: s.SerialSuffix, JoinEUIs: joinEUIs,
		}.Pinned()
		if err != nil {
			return nil, fmt.Errorf("signer %s: %w", s.Name, err)
		}
		found[pinned.ID()] = append(found[pinned.ID()], pin{pinned, joinEUIs, devEUIs})
	}
	return found, nil
}

func (a *app) checkManifest(ctx context.Context, f *manifestCheckFlags, j *manifestCheck) error {
	signers, err := a.pinned(ctx, f)
	if err != nil {
		return err
	}
	j.progress.begin(0)
	defer j.progress.end()
	entries := manifest.NewReader(j.progress)
	var from uint64
	for ended := false; !ended && ctx.Err() == nil; {
		var run [][]byte
		for len(run) < client.MaxImportRows {
			entry, err := entries.Next()
			if errors.Is(err, io.EOF) {
				ended = true
				break
			}
			if err != nil {
				return fmt.Errorf("the file is broken: %w", err)
			}
			run = append(run, entry)
		}
		for _, r := range signers.checkAll(run, from) {
			if err := j.take(r); err != nil {
				return err
			}
		}
		from += uint64(len(run))
		j.progress.at(from)
	}
	return ctx.Err()
}

// checkAll checks entries on all processors; the results are in their order.
func (p pins) checkAll(entries [][]byte, from uint64) []client.RowResult {
	results := make([]client.RowResult, len(entries))
	workers := runtime.GOMAXPROCS(0)
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			for k := w; k < len(entries); k += workers {
				results[k] = p.check(entries[k])
				results[k].Index, results[k].Line = from+uint64(k), from+uint64(k)+1
			}
		})
	}
	wait.Wait()
	return results
}

// check checks an entry. Where its certificate is pinned more than once, the first
// pin that lets it pass counts, and the first reason if none does: so does the server.
func (p pins) check(entry []byte) (first client.RowResult) {
	for try := 0; ; try++ {
		var by pin
		more := false
		e, _, err := manifest.Verify(entry, func(id manifest.SignerID) *manifest.Signer {
			list := p[id]
			if try >= len(list) {
				return nil
			}
			by, more = list[try], try+1 < len(list)
			return by.Signer
		})
		r := client.RowResult{JoinEUI: e.JoinEUI, DevEUI: e.DevEUI, Serial: e.UniqueID, Status: statusGood, Warning: e.Warning}
		if err != nil {
			r.Reason = err.Error()
		} else {
			r.Reason = by.refuses(e)
		}
		if r.Reason == "" {
			return r
		}
		r.Status = string(joinery.RowFailed)
		if try == 0 {
			first = r
		}
		if !more {
			return first
		}
	}
}

// checkList looks up the devices of a list of The Things Stack.
func (a *app) checkList(ctx context.Context, j *manifestCheck) error {
	list, err := manifest.ReadDeviceList(j.progress)
	if err != nil {
		return err
	}
	api, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer api.Close()
	j.progress.begin(0)
	defer j.progress.end()
	for index := uint64(0); ; index++ {
		d, err := list.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, manifest.ErrClearKey):
			return fmt.Errorf("%w; 'joinctl import keys' encrypts them on this machine and imports them", err)
		case err != nil:
			return err
		}
		r := client.RowResult{Index: index, Line: d.Line, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI}
		if r.Status, r.Reason, err = lookUpListed(ctx, api, d); err != nil {
			return err
		}
		if err := j.take(r); err != nil {
			return err
		}
		j.progress.at(index + 1)
	}
}

// lookUpListed tells whether a listed device is there, as the list has it.
func lookUpListed(ctx context.Context, api *client.Client, d manifest.Listed) (status, reason string, err error) {
	for found, err := range api.Devices(ctx, client.DevicesQuery{JoinEUI: d.JoinEUI, DevEUI: d.DevEUI.String()}) {
		switch {
		case err != nil:
			return "", "", err
		case d.MACVersion != 0 && found.MACVersion != d.MACVersion:
			return string(joinery.RowFailed), "the device is here with another MACVersion", nil
		}
		return statusGood, "", nil
	}
	return string(joinery.RowFailed), "no such device is here, or it is somebody else's: elements come in by their maker's manifest, others by 'joinctl import keys'", nil
}
