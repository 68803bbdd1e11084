package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

// Errors of reading a backup. Each comes with a text that says more.
var (
	ErrDamaged  = errors.New("the backup is damaged")
	ErrIdentity = errors.New("the backup was not encrypted to this identity")
)

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s; use another one", ErrDamaged, fmt.Sprintf(format, args...))
}

// explain gives what damaged says, with the reading's own reason if it has one.
func explain(err error, what string) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged("%s", what)
	}
	return fmt.Errorf("%w: %s (%w); use another one", ErrDamaged, what, err)
}

// Header says what a backup is of.
type Header struct {
	TakenAt time.Time `json:"takenAt"`
	Schema  int       `json:"schema"`  // number of the last migration
	Epoch   int64     `json:"epoch"`   // how often servers had opened the database
	Program string    `json:"program"` // version of the program that wrote it
	Rows    int64     `json:"rows"`
}

// tableHead begins a table.
type tableHead struct {
	Name    string   `json:"name"`
	Columns []string `json:"columns"`
}

// end is the last frame.
type end struct {
	Rows   map[string]int64 `json:"rows"`
	SHA256 string           `json:"sha256"`
}

// Summary is what was written or read.
type Summary struct {
	Header
	Tables map[string]int64 `json:"tables"` // rows by table
	SHA256 string           `json:"sha256"` // of the content, in hexadecimal
}

// Source is one state of a database. Its values are nil, int64, string and
// []byte.
type Source interface {
	TakenAt() time.Time
	Schema() int
	Epoch() int64
	// Tables names the tables, each behind those to which it refers.
	Tables() []string
	Columns(table string) []string
	// Count gives the number of all rows.
	Count() (int64, error)
	Rows(table string, fn func(row []any) error) error
}

// Progress is told rows done and all there are; nil is nobody.
type Progress func(done, all int64)

func (p Progress) tell(done, all int64) {
	if p != nil {
		p(done, all)
	}
}

// Write writes a backup of s to w, encrypted to recipients. program is the
// version of who writes.
func Write(ctx context.Context, w io.Writer, recipients Recipients, s Source, program string, progress Progress) (Summary, error) {
	if len(recipients) == 0 {
		return Summary{}, errors.New("a backup is always encrypted: name at least one recipient")
	}
	all, err := s.Count()
	if err != nil {
		return Summary{}, err
	}
	sum := Summary{
		Header: Header{TakenAt: s.TakenAt(), Schema: s.Schema(), Epoch: s.Epoch(), Program: program, Rows: all},
		Tables: map[string]int64{},
	}
	encrypted, err := age.Encrypt(w, recipients...)
	if err != nil {
		return sum, err
	}
	compressed, err := zstd.NewWriter(encrypted, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return sum, err
	}
	if err := writeFrames(ctx, compressed, s, &sum, progress); err != nil {
		_ = compressed.Close()
		return sum, err
	}
	if err := compressed.Close(); err != nil {
		return sum, err
	}
	return sum, encrypted.Close()
}

func writeFrames(ctx context.Context, w io.Writer, s Source, sum *Summary, progress Progress) error {
	f, err := newFrameWriter(w)
	if err != nil {
		return err
	}
	if err := f.writeJSON(frameHeader, sum.Header); err != nil {
		return err
	}
	done := int64(0)
	for _, table := range s.Tables() {
		if err := f.writeJSON(frameTable, tableHead{table, s.Columns(table)}); err != nil {
			return err
		}
		sum.Tables[table] = 0
		var content []byte
		flush := func() error {
			if len(content) == 0 {
				return nil
			}
			err := f.write(frameRows, content)
			content = content[:0]
			progress.tell(done, sum.Rows)
			return errors.Join(err, ctx.Err())
		}
		err := s.Rows(table, func(row []any) (err error) {
			if content, err = appendRow(content, row); err != nil {
				return fmt.Errorf("table %s: %w", table, err)
			}
			sum.Tables[table]++
			done++
			if len(content) >= rowsFrame {
				return flush()
			}
			return nil
		})
		if err == nil {
			err = flush()
		}
		if err != nil {
			return err
		}
	}
	sum.SHA256 = hex.EncodeToString(f.hash.Sum(nil))
	return f.writeJSON(frameEnd, end{Rows: sum.Tables, SHA256: sum.SHA256})
}

// Target takes the rows of a backup.
type Target interface {
	// Begin comes first.
	Begin(ctx context.Context, h Header) error
	// Tables names the tables that a backup of that schema must have.
	Tables() []string
	// Columns names the columns of a table; none for one that it does not have.
	Columns(table string) []string
	// Insert takes rows, their values in the order of Columns.
	Insert(ctx context.Context, table string, rows [][]any) error
}

// Read reads a whole backup into t; with t nil it only looks that all is there.
// What t was given counts for nothing unless Read returns no error.
func Read(ctx context.Context, r io.Reader, identities Identities, t Target, progress Progress) (Summary, error) {
	decrypted, err := age.Decrypt(r, identities...)
	if err != nil {
		if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
			return Summary{}, fmt.Errorf("%w: give the identity of one of its recipients", ErrIdentity)
		}
		return Summary{}, fmt.Errorf("%w: it is no backup, or its beginning is lost: %w", ErrDamaged, err)
	}
	plain, err := zstd.NewReader(decrypted, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return Summary{}, err
	}
	defer plain.Close()
	f, err := newFrameReader(plain)
	if err != nil {
		return Summary{}, err
	}
	rd := &reading{ctx: ctx, frames: f, target: t, progress: progress, sum: Summary{Tables: map[string]int64{}}}
	if err := rd.header(); err != nil {
		return Summary{}, err
	}
	for ended := false; !ended; {
		if ended, err = rd.step(); err != nil {
			return Summary{}, err
		}
	}
	if err := rd.complete(); err != nil {
		return Summary{}, err
	}
	return rd.sum, nil
}

// reading is one run of Read.
type reading struct {
	ctx      context.Context
	frames   *frameReader
	target   Target
	progress Progress
	sum      Summary
	done     int64
	table    tableHead
	order    []int // of each column of the target: its place in the backup's rows
}

func (rd *reading) header() error {
	kind, content, _, err := rd.frames.next()
	if err != nil {
		return err
	}
	if kind != frameHeader || json.Unmarshal(content, &rd.sum.Header) != nil {
		return damaged("its header cannot be read")
	}
	if rd.target == nil {
		return nil
	}
	return rd.target.Begin(rd.ctx, rd.sum.Header)
}

// step takes one frame.
func (rd *reading) step() (ended bool, err error) {
	kind, content, sum, err := rd.frames.next()
	if err == nil {
		err = rd.ctx.Err()
	}
	if err != nil {
		return false, err
	}
	switch kind {
	case frameTable:
		return false, rd.begin(content)
	case frameRows:
		return false, rd.rows(content)
	case frameEnd:
		return true, rd.end(content, sum)
	default:
		return false, damaged("a frame is of unknown kind")
	}
}

// begin begins a table, whose columns must be those of the target's.
func (rd *reading) begin(content []byte) error {
	rd.table = tableHead{}
	if err := json.Unmarshal(content, &rd.table); err != nil || len(rd.table.Columns) == 0 {
		return damaged("the beginning of a table cannot be read")
	}
	if _, twice := rd.sum.Tables[rd.table.Name]; twice {
		return damaged("it has table %q twice", rd.table.Name)
	}
	rd.sum.Tables[rd.table.Name] = 0
	if rd.target == nil {
		return nil
	}
	want := rd.target.Columns(rd.table.Name)
	if !slices.Equal(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(rd.table.Columns))) {
		return damaged("table %q has not the columns that schema %d gives it", rd.table.Name, rd.sum.Schema)
	}
	rd.order = make([]int, len(want))
	for i, name := range want {
		rd.order[i] = slices.Index(rd.table.Columns, name)
	}
	return nil
}

func (rd *reading) rows(content []byte) error {
	if len(rd.table.Columns) == 0 {
		return damaged("rows stand before their table")
	}
	list, err := rows(content, len(rd.table.Columns))
	if err != nil {
		return err
	}
	rd.sum.Tables[rd.table.Name] += int64(len(list))
	rd.done += int64(len(list))
	defer func() { rd.progress.tell(rd.done, rd.sum.Rows) }()
	if rd.target == nil {
		return nil
	}
	for i, row := range list {
		ordered := make([]any, len(row))
		for k, from := range rd.order {
			ordered[k] = row[from]
		}
		list[i] = ordered
	}
	return rd.target.Insert(rd.ctx, rd.table.Name, list)
}

func (rd *reading) end(content []byte, sum [sha256.Size]byte) error {
	var e end
	if err := json.Unmarshal(content, &e); err != nil {
		return damaged("its end cannot be read")
	}
	rd.sum.SHA256 = hex.EncodeToString(sum[:])
	if e.SHA256 != rd.sum.SHA256 || !maps.Equal(e.Rows, rd.sum.Tables) {
		return damaged("its content is not what its end says")
	}
	return rd.frames.end()
}

// complete makes sure that no table is missing.
func (rd *reading) complete() error {
	if rd.target == nil {
		return nil
	}
	for _, table := range rd.target.Tables() {
		if _, found := rd.sum.Tables[table]; !found {
			return damaged("it lacks table %q", table)
		}
	}
	return nil
}
