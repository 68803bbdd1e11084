package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"joinery"
	"joinery/client"

	"github.com/schollz/progressbar/v3"
)

// maxRun bounds the bytes of one run of rows, well under what the server takes.
const maxRun = 8 << 20

// row is one row on its way to the server: one of key, entry and bad.
type row struct {
	key   *client.SealedKeyRow
	entry []byte
	bad   *client.BadRow
	size  int // about how many bytes it takes in a request
}

// run is rows that go in one request.
type run struct {
	client.ImportRows
	count, size int
}

func (r *run) add(v row) {
	switch {
	case v.key != nil:
		r.Keys = append(r.Keys, *v.key)
	case v.bad != nil:
		bad := *v.bad
		bad.Index = r.From + uint64(r.count)
		r.BadRows = append(r.BadRows, bad)
	default:
		r.Entries = append(r.Entries, v.entry)
	}
	r.count++
	r.size += v.size
}

// runImport gives the rows that the server does not have yet, and reports.
func (a *app) runImport(ctx context.Context, api *client.Client, state client.Import, report string, p *progress, header *client.SealHeader, next func() (row, error)) error {
	if state.Done {
		a.sayf("this file was imported before\n")
		return a.report(ctx, api, state, report)
	}
	if state.Next > 0 {
		a.sayf("going on behind row %d of an import that was cut off\n", state.Next)
	}
	for skipped := range state.Next {
		if _, err := next(); err != nil {
			return fmt.Errorf("the file has only %d rows of the %d that were imported before: %w", skipped, state.Next, notEOF(err))
		}
	}
	p.begin(state.Next)
	newRun := func(from uint64) *run {
		return &run{ImportRows: client.ImportRows{From: from, Seal: header}}
	}
	current := newRun(state.Next)
	var broken error
	for {
		v, err := next()
		full := current.count == client.MaxImportRows || current.count > 0 && current.size+v.size > maxRun
		if full || err != nil {
			current.Last = errors.Is(err, io.EOF)
			if current.count > 0 || current.Last {
				var sendErr error
				if state, sendErr = send(ctx, api, state.ID, current); sendErr != nil {
					p.end()
					return fmt.Errorf("after %d rows: %w; the same command goes on from there", current.From, sendErr)
				}
			}
			p.at(state.Next)
			current = newRun(state.Next)
		}
		if err != nil {
			broken = notEOF(err)
			break
		}
		current.add(v)
	}
	p.end()
	if broken != nil && !errors.Is(broken, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the file is broken; the %d rows before that are imported: %w", state.Next, broken)
	}
	return a.report(ctx, api, state, report)
}

// notEOF makes the end of a file where it was not expected an error that says
// so.
func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Tries of one run, and the first wait between two; it doubles.
const (
	maxTries  = 6
	firstWait = 250 * time.Millisecond
)

// send gives one run. A server that is away for a moment is asked again; an
// answer that was lost is found by where the import stands.
func send(ctx context.Context, api *client.Client, id joinery.ImportID, r *run) (client.Import, error) {
	wait := firstWait
	for try := 1; ; try++ {
		p, err := api.ImportRows(ctx, id, r.ImportRows)
		if err == nil {
			return p.Import, nil
		}
		code := joinery.Code("")
		if problem, ok := errors.AsType[*client.Problem](err); ok {
			code = problem.Code
		}
		switch {
		case code == joinery.CodeConflict:
			if state, stateErr := api.Import(ctx, id); stateErr == nil && state.Next == r.From+uint64(r.count) {
				return state, nil
			}
			return client.Import{}, err
		case try == maxTries, code != joinery.CodeUnavailable && code != joinery.CodeRateLimited && !errors.Is(err, client.ErrUnreachable):
			return client.Import{}, err
		}
		select {
		case <-ctx.Done():
			return client.Import{}, ctx.Err()
		case <-time.After(wait):
			wait *= 2
		}
	}
}

// progress counts the bytes of a file as they are read, and shows how far an
// import is: a bar on a terminal, else a line now and then.
type progress struct {
	a     *app
	in    io.Reader
	size  int64
	read  int64
	bar   *progressbar.ProgressBar
	begun time.Time
	said  time.Time
	first uint64
}

// sayEvery is how often a line is written where there is no terminal.
const sayEvery = 5 * time.Second

func newProgress(a *app, f *os.File) *progress {
	p := &progress{a: a, in: f}
	if info, err := f.Stat(); err == nil {
		p.size = info.Size()
	}
	return p
}

// Read implements io.Reader.
func (p *progress) Read(b []byte) (int, error) {
	n, err := p.in.Read(b)
	p.read += int64(n)
	return n, err
}

func (p *progress) begin(first uint64) {
	p.first, p.begun, p.said = first, time.Now(), time.Now()
	if isTerminal(p.a.err) {
		p.bar = progressbar.NewOptions64(max(p.size, 1), progressbar.OptionSetWriter(p.a.err),
			progressbar.OptionSetDescription("importing"), progressbar.OptionClearOnFinish(),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetElapsedTime(true))
	}
}

// at shows that rows are imported now.
func (p *progress) at(rows uint64) {
	if p.bar != nil {
		p.bar.Describe(fmt.Sprintf("%d rows, %.0f/s", rows, float64(rows-p.first)/max(time.Since(p.begun).Seconds(), 0.001)))
		_ = p.bar.Set64(min(p.read, p.size)) // a bar that cannot be drawn stops no import
		return
	}
	if time.Since(p.said) >= sayEvery {
		p.said = time.Now()
		p.a.sayf("%d rows, %d %% of the file\n", rows, 100*p.read/max(p.size, 1))
	}
}

func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
