package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"joinery/client"
	"joinery/internal/label"
	"joinery/lorawan"
	"joinery/tr005"

	"github.com/spf13/cobra"
)

func (a *app) labelCommand() *cobra.Command {
	c := &cobra.Command{Use: "label", Short: "QR codes and labels of devices, and what a scanned label says"}
	c.AddCommand(a.labelShowCommand(), a.labelSheetCommand(), a.labelListCommand(), a.labelImagesCommand(), a.labelReadCommand())
	return c
}

const labelHelp = `

A label holds the owner token, with which whoever scans it can claim the device. Only
the maker can make labels, until the first claim, and the audit log records each. Files
are readable by you alone, and are never written over.`

// labelPrint is what all labels of a run have in common.
type labelPrint struct {
	profile, form, level string
	noSerial             bool
}

func (p *labelPrint) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.profile, "profile-id", "", "ProfileID of the product: VendorID and VendorProfileID, 8 hexadecimal digits (default 00000000)")
	f.StringVar(&p.form, "form", "tr005", "form of the text: tr005 (the final one), draft2 or draft3 for older software")
	f.BoolVar(&p.noSerial, "no-serial", false, "leave the serial number out")
}

func (p *labelPrint) registerLevel(c *cobra.Command) {
	c.Flags().StringVar(&p.level, "level", "M", "error correction: L, M, Q or H; a higher one survives more dirt and needs more room")
}

// labelStyle is labelPrint, read.
type labelStyle struct {
	profile  tr005.ProfileID
	format   tr005.Format
	level    label.Level
	noSerial bool
}

func (p *labelPrint) style() (s labelStyle, err error) {
	s.noSerial = p.noSerial
	if p.profile != "" {
		if s.profile, err = tr005.ParseProfileID(p.profile); err != nil {
			return s, usagef("--profile-id: %w", err)
		}
	}
	forms := map[string]tr005.Format{"tr005": tr005.Final, "draft2": tr005.Draft2, "draft3": tr005.Draft3}
	format, known := forms[p.form]
	if !known {
		return s, usagef("--form: want tr005, draft2 or draft3")
	}
	s.format = format
	if p.level != "" {
		if s.level, err = label.ParseLevel(p.level); err != nil {
			return s, usagef("--level: %w", err)
		}
	}
	return s, nil
}

// label makes the label of a device.
func (s labelStyle) label(w wanted, t client.LabelToken) tr005.Label {
	l := tr005.Label{
		Format: s.format, JoinEUI: t.JoinEUI, DevEUI: t.DevEUI, ProfileID: s.profile,
		OwnerToken: t.OwnerToken, Serial: w.serial, Proprietary: w.proprietary,
	}
	if w.profile != nil {
		l.ProfileID = *w.profile
	}
	if l.Serial == "" {
		l.Serial = strings.ToUpper(t.Serial) // hexadecimal, and QR codes have capitals
	}
	if s.noSerial {
		l.Serial = ""
	}
	return l
}

// encode makes the text of a label, and its code.
func (s labelStyle) encode(l tr005.Label) (text string, code label.Code, err error) {
	if text, err = l.Encode(); err == nil {
		code, err = label.Encode(text, s.level)
	}
	return text, code, err
}

// check tells whether a label has a text and a code.
func (s labelStyle) check(l tr005.Label) error {
	_, _, err := s.encode(l)
	return err
}

func (a *app) labelShowCommand() *cobra.Command {
	var p labelPrint
	var out string
	c := a.command(&cobra.Command{
		Use:   "show DEVICE",
		Short: "Show the QR code of one device",
		Long: `Show the QR code of one device on the terminal, or write it to a file: PNG or SVG, by
the name's end.` + labelHelp + deviceHelp,
		Example: `  joinctl label show 70B3D57ED0000000/0004A310001AA90A
  joinctl label show 0004A310001AA90A --profile-id 42FFFF42 --out label.svg
  joinctl label show 0004A310001AA90A --json | jq -r .text`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		style, err := p.style()
		if err != nil {
			return err
		}
		if out != "" && drawing(out) == nil {
			return usagef("--out: want a name that ends with .png or .svg")
		}
		if out != "" {
			if err := checkFree(out); err != nil {
				return err
			}
		}
		job := &labelJob{a: a, api: api, style: style, check: style.check}
		var l tr005.Label
		if err := job.run(ctx, namedDevices(ctx, api, args), func(made tr005.Label) error { l = made; return nil }); err != nil {
			return err
		}
		if len(job.refused) > 0 {
			return errors.New(job.refused[0].Reason)
		}
		return a.showLabel(l, style, out)
	})
	c.Flags().StringVar(&out, "out", "", "write the code to this new file instead, readable by you alone")
	p.register(c)
	p.registerLevel(c)
	return c
}

func (a *app) showLabel(l tr005.Label, style labelStyle, out string) error {
	text, code, err := style.encode(l)
	if err != nil {
		return err
	}
	if out != "" {
		if err := writeSecret(out, func(w io.Writer) error { return drawing(out)(code, w) }); err != nil {
			return err
		}
		return a.done(map[string]string{"file": out}, "the code of %s/%s is in %s", l.JoinEUI, l.DevEUI, out)
	}
	return a.show(labelJSON(l, text), func() error {
		return a.printf("%s%s\n", code.Terminal(isTerminal(a.out)), text)
	})
}

// drawing gives what draws a code for a file of that name; nil for none.
func drawing(name string) func(label.Code, io.Writer) error {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".png":
		return func(c label.Code, w io.Writer) error { return c.PNG(w, 10) }
	case ".svg":
		return func(c label.Code, w io.Writer) error { return c.SVG(w, float64(c.Side())/2) }
	}
	return nil
}

func (a *app) labelSheetCommand() *cobra.Command {
	var p labelPrint
	var pick labelPick
	var s sheetFlags
	var out string
	c := a.command(&cobra.Command{
		Use:   "sheet [DEVICE…] --out FILE.pdf",
		Short: "Make a PDF with sheets of labels",
		Long: `Make a PDF with sheets of labels: the QR code, and beside it the identifiers and the
owner token for people. Columns, rows and margins follow from page and label unless they
are given. Print it at its actual size ("100 %", not "fit to page").` + labelHelp + pickHelp,
		Example: `  joinctl label sheet --import imp_0c3kd5vqmr2hx --out labels.pdf
  joinctl label sheet --from list.csv --label 63.5x38.1 --columns 3 --rows 7 --gap 2.5x0 --out labels.pdf
  joinctl label sheet --all --page 50x25 --label 50x25 --title "Acme sensor" --out roll.pdf
  joinctl label sheet 0004A310001AA90A --skip 5 --out one.pdf`,
	}, func(ctx context.Context, api *client.Client, args []string) error {
		style, err := p.style()
		if err != nil {
			return err
		}
		layout, err := s.layout()
		if err != nil {
			return err
		}
		layout.Level = style.level
		sheet, err := label.NewSheet(layout)
		if err != nil {
			return usageError{err}
		}
		job := &labelJob{a: a, api: api, style: style, check: sheet.Check, most: label.MaxSheet}
		err = job.write(out, func(w io.Writer) error {
			if err := job.picked(ctx, &pick, args, sheet.Add); err != nil || sheet.Len() == 0 {
				return err
			}
			return sheet.Write(w)
		})
		if err != nil {
			return err
		}
		return job.report(out, fmt.Sprintf(" on %d pages", sheet.Pages()))
	})
	s.register(c)
	pick.register(c)
	p.register(c)
	p.registerLevel(c)
	registerOut(c, &out, "PDF")
	return c
}

func (a *app) labelListCommand() *cobra.Command {
	var p labelPrint
	var pick labelPick
	var out, divider string
	c := a.command(&cobra.Command{
		Use:   "csv [DEVICE…] --out FILE.csv",
		Short: "Make a CSV for the program of a label printer",
		Long: `Make a CSV for the program of a label printer. Its first line names the columns: Text,
which is what the QR code has to hold, JoinEUI, DevEUI, ProfileID, OwnerToken, Serial
and Proprietary.` + labelHelp + pickHelp,
		Example: `  joinctl label csv --import imp_0c3kd5vqmr2hx --profile-id 42FFFF42 --out labels.csv
  joinctl label csv --from list.csv --divider ';' --out labels.csv
  joinctl label csv --all --out - | print-labels`,
	}, func(ctx context.Context, api *client.Client, args []string) error {
		style, err := p.style()
		if err != nil {
			return err
		}
		comma, n := utf8.DecodeRuneInString(divider)
		if n != len(divider) || !strings.ContainsRune(",;\t|", comma) {
			return usagef("--divider: want one of comma, semicolon, tab and |")
		}
		job := &labelJob{a: a, api: api, style: style, check: func(l tr005.Label) error { _, err := l.Encode(); return err }}
		err = job.write(out, func(w io.Writer) error {
			list, err := label.NewList(w, comma)
			if err != nil {
				return err
			}
			if err := job.picked(ctx, &pick, args, list.Add); err != nil {
				return err
			}
			return list.Flush()
		})
		if err != nil {
			return err
		}
		return job.report(out, "")
	})
	c.Flags().StringVar(&divider, "divider", ",", "what divides the columns")
	pick.register(c)
	p.register(c)
	registerOut(c, &out, "CSV")
	return c
}

func registerOut(c *cobra.Command, out *string, what string) {
	c.Flags().StringVar(out, "out", "", "the new file to write the "+what+" to; - for standard output")
	require(c, "out")
}

func (a *app) labelImagesCommand() *cobra.Command {
	var p labelPrint
	var pick labelPick
	var dir, kind string
	c := a.command(&cobra.Command{
		Use:   "images [DEVICE…] --dir DIRECTORY",
		Short: "Write the QR code of each device to a file of its own",
		Long: `Write the QR code of each device to a file of its own, as PNG or SVG, in a directory
that is made where it is not there. The files are named JOINEUI-DEVEUI.` + labelHelp + pickHelp,
		Example: `  joinctl label images --import imp_0c3kd5vqmr2hx --dir codes
  joinctl label images 0004A310001AA90A 0004A310001AA90B --kind svg --dir codes`,
	}, func(ctx context.Context, api *client.Client, args []string) error {
		style, err := p.style()
		if err != nil {
			return err
		}
		draw := drawing("." + kind)
		if draw == nil {
			return usagef("--kind: want png or svg")
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		file := func(joinEUI, devEUI lorawan.EUI64) string {
			return filepath.Join(dir, joinEUI.String()+"-"+devEUI.String()+"."+kind)
		}
		job := &labelJob{a: a, api: api, style: style, check: style.check}
		job.free = func(joinEUI, devEUI lorawan.EUI64) error { return checkFree(file(joinEUI, devEUI)) }
		err = job.picked(ctx, &pick, args, func(l tr005.Label) error {
			_, code, err := style.encode(l)
			if err != nil {
				return err
			}
			return writeSecret(file(l.JoinEUI, l.DevEUI), func(w io.Writer) error { return draw(code, w) })
		})
		if err != nil {
			return err
		}
		return job.report(dir, "")
	})
	c.Flags().StringVar(&dir, "dir", "", "the directory for the files")
	c.Flags().StringVar(&kind, "kind", "png", "png or svg")
	require(c, "dir")
	pick.register(c)
	p.register(c)
	p.registerLevel(c)
	return c
}

// writeSecret makes a file that nobody else can read, and that must not be
// there. Nothing stays of one that could not be written.
func writeSecret(path string, write func(io.Writer) error) error {
	f, err := createSecret(path)
	if err != nil {
		return err
	}
	err = write(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// errIsThere is the error of a file that is there and must not be.
func errIsThere(path string) error {
	return fmt.Errorf("%s is there already; name another file, or remove it", path)
}

// checkFree tells whether there is no file of that name yet, before anything secret is
// read for it.
func checkFree(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return errIsThere(path)
	}
	return nil // what else may be wrong shows when it is made
}

// createSecret makes a file that nobody else can read, and that must not be there.
func createSecret(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, errIsThere(path)
	}
	return f, err
}
