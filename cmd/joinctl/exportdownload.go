package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/exportfile"

	"github.com/spf13/cobra"
)

// partSuffix is behind the name of a file that is not whole yet.
const partSuffix = ".part"

func (a *app) exportDownloadCommand() *cobra.Command {
	var out string
	var keep bool
	c := a.exportAct(&cobra.Command{
		Use: "download EXPORT --out FILE", Short: "Download the file of an export, and acknowledge it",
		Long: `Download the file of an export that is ready. When all of it is on the disk it is
acknowledged, and the server deletes what was wrapped: it can be had once. Cut off,
the same command goes on where it stood. What is in the file opens for the recipient's
private key alone.`,
		Example: "  joinctl export download exp_0c3kd5vqmr2hx --out export.jsonl",
	}, func(ctx context.Context, api *client.Client, id joinery.ExportID) error {
		d := &download{a: a, api: api, id: id, path: out}
		e, err := d.run(ctx)
		if err != nil {
			return err
		}
		if !keep {
			if e, err = api.AcknowledgeExport(ctx, id); err != nil {
				return fmt.Errorf("%s is whole, but the server was not told: %w; the same command tells it", out, err)
			}
		}
		return a.done(e, "%d devices in %s, %d left out", e.Wrapped, out, e.Dropped)
	})
	c.Flags().StringVar(&out, "out", "", "where the file goes")
	c.Flags().BoolVar(&keep, "keep", false, "do not acknowledge: the server keeps it until it expires")
	_ = c.MarkFlagRequired("out") // there is such a flag
	return c
}

// download is one file on its way.
type download struct {
	a    *app
	api  *client.Client
	id   joinery.ExportID
	path string

	header []byte
	lines  int
}

// run brings the whole file onto the disk, unless it is there.
func (d *download) run(ctx context.Context) (client.Export, error) {
	e, err := d.api.Export(ctx, d.id)
	if err != nil {
		return e, err
	}
	if whole, err := d.whole(e); err != nil || whole {
		return e, err
	}
	if e.State == "ready" && e.Wrapped == 0 {
		return e, fmt.Errorf("no device is left in it: joinctl export show %s --devices says why", e.ID)
	}
	if e.State != "ready" {
		return e, fmt.Errorf("it cannot be downloaded now: %s", whatNext(e))
	}
	f, err := d.resume()
	if err != nil {
		return e, err
	}
	err = d.fetch(ctx, f, e)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return e, fmt.Errorf("after %d of %d devices: %w; the same command goes on from there", d.lines, e.Wrapped, err)
	}
	if err := os.Rename(d.path+partSuffix, d.path); err != nil {
		return e, err
	}
	return e, syncDir(filepath.Dir(d.path))
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// whole tells whether the file is there already, and no other is in its place.
func (d *download) whole(e client.Export) (bool, error) {
	f, err := os.Open(d.path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	r, err := exportfile.NewReader(f)
	if err != nil || r.Header().ID != d.id.String() {
		return false, fmt.Errorf("%s is there already, and is not the file of this export; name another", d.path)
	}
	n := int64(0)
	for err == nil {
		if _, err = r.Next(); err == nil {
			n++
		}
	}
	if !errors.Is(err, io.EOF) || n != e.Wrapped {
		return false, fmt.Errorf("%s is there already, and is not whole; remove it", d.path)
	}
	return true, nil
}

// resume opens the part that is there, cut off behind its last whole line, or makes
// one.
func (d *download) resume() (*os.File, error) {
	f, err := os.OpenFile(d.path+partSuffix, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	end := int64(0)
	in := bufio.NewReader(f)
	for first := true; ; first = false {
		line, err := in.ReadBytes('\n')
		if err != nil {
			break // what is cut off is had again
		}
		end += int64(len(line))
		if first {
			d.header = bytes.TrimSuffix(line, []byte("\n"))
		} else {
			d.lines++
		}
	}
	if err := f.Truncate(end); err == nil {
		_, err = f.Seek(end, io.SeekStart)
		if err == nil {
			return f, nil
		}
		return nil, errors.Join(err, f.Close())
	}
	return nil, errors.Join(err, f.Close())
}

// fetch writes what is missing.
func (d *download) fetch(ctx context.Context, f *os.File, e client.Export) error {
	w := bufio.NewWriter(f)
	if d.lines > 0 {
		d.a.sayf("going on behind device %d of %d\n", d.lines, e.Wrapped)
	}
	for q := (client.ExportFileQuery{Skip: d.lines, Limit: 200}); ; {
		page, err := retried(ctx, func() (client.ExportFilePage, error) { return d.api.ExportFile(ctx, d.id, q) })
		if err != nil {
			return errors.Join(err, w.Flush())
		}
		if err := d.write(w, page); err != nil {
			return err
		}
		if page.Next == "" {
			break
		}
		d.a.sayf("%d of %d devices\n", d.lines, e.Wrapped)
		q.After, q.Skip = page.Next, 0
	}
	if int64(d.lines) != e.Wrapped {
		return errors.Join(fmt.Errorf("%d devices came, and the export has %d", d.lines, e.Wrapped), w.Flush())
	}
	return w.Flush()
}

func (d *download) write(w *bufio.Writer, page client.ExportFilePage) error {
	if d.header == nil {
		d.header = []byte(page.Header)
		if _, err := w.WriteString(page.Header + "\n"); err != nil {
			return err
		}
	}
	if string(d.header) != page.Header {
		return errors.New("the file that was begun is of another export; remove it, or name another")
	}
	for _, line := range page.Items {
		if _, err := w.WriteString(line + "\n"); err != nil {
			return err
		}
		d.lines++
	}
	return nil
}

// retried asks a server again that is away for a moment.
func retried[T any](ctx context.Context, ask func() (T, error)) (v T, err error) {
	for try, wait := 1, firstWait; ; try, wait = try+1, 2*wait {
		v, err = ask()
		p, answered := errors.AsType[*client.Problem](err)
		again := answered && (p.Code == joinery.CodeUnavailable || p.Code == joinery.CodeRateLimited) || errors.Is(err, client.ErrUnreachable)
		if err == nil || !again || try == maxTries {
			return v, err
		}
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-time.After(wait):
		}
	}
}
