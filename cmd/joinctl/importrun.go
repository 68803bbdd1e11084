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

// maxBatch bounds the bytes of one batch, well under what the server takes.
const maxBatch = 8 << 20

// row is one row on its way to the server: one of key, entry and bad.
type row struct {
	key   *client.SealedKeyRow
	entry []byte
	bad   *client.BadRow
	size  int // about how many bytes it takes in a request
}

// batch is rows that go in one request.
type batch struct {
	client.ImportRows
	count, size int
}

func (r *batch) add(v row) {
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

// importJob is one import on its way.
type importJob struct {
	a        *app
	api      *client.Client
	state    client.Import
	progress *progress
	header   *client.SealHeader // of a key list
	next     func() (row, error)

	// dryRun rows are kept by nobody, so what was refused is kept here.
	dryRun  bool
	refused []client.RowResult
}

// run gives the rows that the server does not have yet.
func (j *importJob) run(ctx context.Context) error {
	if j.state.Done {
		j.a.sayf("this file was imported before\n")
		return nil
	}
	if err := j.skip(); err != nil {
		return err
	}
	j.progress.begin(j.state.Next)
	defer j.progress.end()
	current := j.newBatch()
	for {
		v, err := j.next()
		ended := errors.Is(err, io.EOF)
		full := current.count == client.MaxImportRows || current.count > 0 && current.size+v.size > maxBatch
		if full || ended || err != nil && current.count > 0 {
			current.Last = ended
			if err := j.send(ctx, current); err != nil {
				return fmt.Errorf("after %d rows: %w; the same command goes on from there", current.From, err)
			}
			current = j.newBatch()
		}
		switch {
		case ended:
			return nil
		case err != nil:
			return fmt.Errorf("the file is broken; the %d rows before that are imported: %w", j.state.Next, err)
		}
		current.add(v)
	}
}

// skip passes over the rows that the server has.
func (j *importJob) skip() error {
	if j.state.Next > 0 {
		j.a.sayf("going on behind row %d of an import that was cut off\n", j.state.Next)
	}
	for skipped := range j.state.Next {
		if _, err := j.next(); err != nil {
			return fmt.Errorf("only %d of the %d rows that were imported before could be read: %w", skipped, j.state.Next, err)
		}
	}
	return nil
}

func (j *importJob) newBatch() *batch {
	return &batch{ImportRows: client.ImportRows{From: j.state.Next, Seal: j.header}}
}

// send gives one batch and notes where the import stands.
func (j *importJob) send(ctx context.Context, r *batch) error {
	p, err := sendBatch(ctx, j.api, j.state.ID, r)
	if err != nil {
		return err
	}
	if j.dryRun {
		if len(p.Results) != r.count {
			return errors.New("an answer was lost, and with it which rows would be refused")
		}
		for _, result := range p.Results {
			if joinery.RowStatus(result.Status).Refused() {
				j.refused = append(j.refused, result)
			}
		}
	}
	j.state = p.Import
	j.progress.at(j.state.Next)
	return nil
}

// Tries of one batch, and the first wait between two; it doubles.
const (
	maxTries  = 6
	firstWait = 250 * time.Millisecond
)

// sendBatch gives one batch. A server that is away for a moment is asked again; an
// answer that was lost is found by where the import stands, without its results.
func sendBatch(ctx context.Context, api *client.Client, id joinery.ImportID, r *batch) (client.ImportProgress, error) {
	wait := firstWait
	for try := 1; ; try++ {
		p, err := api.ImportRows(ctx, id, r.ImportRows)
		if err == nil {
			return p, nil
		}
		code := joinery.Code("")
		if problem, ok := errors.AsType[*client.Problem](err); ok {
			code = problem.Code
		}
		switch {
		case code == joinery.CodeConflict:
			if state, stateErr := api.Import(ctx, id); stateErr == nil && state.Next == r.From+uint64(r.count) {
				return client.ImportProgress{Import: state}, nil
			}
			return client.ImportProgress{}, err
		case try == maxTries, code != joinery.CodeUnavailable && code != joinery.CodeRateLimited && !errors.Is(err, client.ErrUnreachable):
			return client.ImportProgress{}, err
		}
		select {
		case <-ctx.Done():
			return client.ImportProgress{}, ctx.Err()
		case <-time.After(wait):
			wait *= 2
		}
	}
}

// progress counts the bytes of a file as they are read, and shows how far an
// import is: a bar on a terminal, else a line now and then.
type progress struct {
	a     *app
	file  *os.File
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
	p := &progress{a: a, file: f}
	if info, err := f.Stat(); err == nil {
		p.size = info.Size()
	}
	return p
}

// Read implements io.Reader.
func (p *progress) Read(b []byte) (int, error) {
	n, err := p.file.Read(b)
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
