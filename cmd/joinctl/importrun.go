package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"joinery"
	"joinery/client"

	"github.com/schollz/progressbar/v3"
)

// maxBatch bounds the bytes of one batch, well under what the server takes.
const maxBatch = 8 << 20

// row is one row on its way to the server: one of key, line, entry and bad.
type row struct {
	key   *client.SealedKeyRow
	line  string // of an export
	entry []byte
	bad   *client.BadRow
	// header opens line: not all devices of a file are wrapped under one.
	header *client.SealHeader
	size   int // about how many bytes it takes in a request
}

// batch is rows that go in one request.
type batch struct {
	client.ImportRows
	count, size int
	wrapped     *client.SealHeader // of the devices of an export
}

func (r *batch) add(v row) {
	switch {
	case v.line != "":
		r.wrapped = v.header
		r.Exported = append(r.Exported, v.line)
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
	exported string             // the first line of an export
	next     func() (row, error)
	notes    notes
	passed   []passed // from notes.results.behind on

	// waiting is the batches that were sent and not answered for, in order. sent is
	// the row behind the last of them.
	waiting []*sending
	sent    atomic.Uint64
}

// ahead is how many batches are on their way at once: while the server writes one
// it verifies the next, and here the one after that is read.
const ahead = 3

// sending is a batch on its way. When done is closed, progress or err is there.
type sending struct {
	*batch
	done     chan struct{}
	progress client.ImportProgress
	err      error
}

// run gives the rows that the server does not have yet.
func (j *importJob) run(ctx context.Context) error {
	if j.state.Done {
		j.a.sayf("this file was imported before\n")
		if j.notes.results.behind >= j.state.Next {
			return nil
		}
	}
	if err := j.skip(); err != nil {
		return err
	}
	if err := j.completeResults(ctx); err != nil || j.state.Done {
		return err
	}
	return j.give(ctx)
}

// give gives all rows that are left.
func (j *importJob) give(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	j.progress.begin(j.state.Next)
	defer j.progress.end()
	j.sent.Store(j.state.Next)
	current := j.newBatch()
	for {
		v, err := j.next()
		ended := errors.Is(err, io.EOF)
		other := v.header != nil && current.count > 0 && v.header != current.wrapped // one request has one
		full := current.count == client.MaxImportRows || current.count > 0 && (current.size+v.size > maxBatch || other)
		if full || ended || err != nil && current.count > 0 {
			current.Last = ended
			j.send(ctx, current)
			current = j.newBatch()
		}
		over := ended || err != nil
		for len(j.waiting) >= ahead || over && len(j.waiting) > 0 {
			if err := j.settle(); err != nil {
				return fmt.Errorf("after %d rows: %w; the same command goes on from there", j.state.Next, err)
			}
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
	if j.state.Next > 0 && !j.state.Done {
		j.a.sayf("going on behind row %d of an import that was cut off\n", j.state.Next)
	}
	for skipped := range j.state.Next {
		v, err := j.next()
		if err != nil {
			return fmt.Errorf("only %d of the %d rows that were imported before could be read: %w", skipped, j.state.Next, err)
		}
		if j.notes.results.lineFile != nil && skipped >= j.notes.results.behind {
			j.passed = append(j.passed, passedBy(skipped, v))
		}
	}
	return nil
}

func (j *importJob) newBatch() *batch {
	return &batch{ImportRows: client.ImportRows{From: j.sent.Load(), Seal: j.header, ExportHeader: j.exported}}
}

// send puts a batch on its way.
func (j *importJob) send(ctx context.Context, b *batch) {
	s := &sending{batch: b, done: make(chan struct{})}
	var before *sending
	if n := len(j.waiting); n > 0 {
		before = j.waiting[n-1]
	}
	j.waiting = append(j.waiting, s)
	j.sent.Store(b.From + uint64(b.count))
	go func() {
		defer close(s.done)
		s.progress, s.err = j.post(ctx, b, before)
	}()
}

// post gives a batch to the server, which may have the one before it in its hands
// still. What goes wrong then is tried again when that one is through.
func (j *importJob) post(ctx context.Context, b *batch, before *sending) (client.ImportProgress, error) {
	if before != nil {
		p, err := j.api.ImportRows(ctx, j.state.ID, b.ImportRows)
		if err == nil {
			return p, nil
		}
		<-before.done
		if before.err != nil {
			return client.ImportProgress{}, before.err
		}
	}
	return sendBatch(ctx, j.api, j.state.ID, b, j.sent.Load)
}

// settle waits for the first batch on its way and notes where the import stands.
func (j *importJob) settle() error {
	s := j.waiting[0]
	<-s.done
	if s.err != nil {
		return s.err
	}
	j.waiting = j.waiting[1:]
	if err := j.notes.take(s.progress.Results, s.count); err != nil {
		return err
	}
	// What the last answer says of the import may be behind what an earlier one
	// says, or ahead: batches are answered in any order.
	if s.progress.Import.Next >= j.state.Next {
		j.state = s.progress.Import
	}
	j.progress.at(j.state.Next)
	return nil
}

// Tries of one batch, and the first wait between two; it doubles.
const (
	maxTries  = 6
	firstWait = 250 * time.Millisecond
)

// sendBatch gives one batch. A server that is away for a moment is asked again; an
// answer that was lost is found by where the import stands, without its results:
// behind the batch, and not beyond the last row that was sent.
func sendBatch(ctx context.Context, api *client.Client, id joinery.ImportID, r *batch, sent func() uint64) (client.ImportProgress, error) {
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
			if state, stateErr := api.Import(ctx, id); stateErr == nil && state.Next >= r.From+uint64(r.count) && state.Next <= sent() {
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
