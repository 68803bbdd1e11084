package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"joinery"
	"joinery/client"
	"joinery/lorawan"
)

// batchRows reads the rows of a batch one by one; io.EOF at the end. A
// *batchRowError is about that row alone.
type batchRows interface {
	next() (item client.OwnershipAct, line int, err error)
}

// batchRowError says what is wrong with a row. It never repeats a value: one may
// be an owner token in the wrong column.
type batchRowError struct{ what string }

// Error implements error.
func (e *batchRowError) Error() string { return e.what }

func badRow(format string, args ...any) error { return &batchRowError{fmt.Sprintf(format, args...)} }

// maxBatchLine bounds one line of JSON.
const maxBatchLine = 16 << 10

// readBatch tells CSV from lines of JSON by the first character.
func readBatch(r io.Reader) (batchRows, error) {
	in := bufio.NewReaderSize(r, maxBatchLine)
	if mark, err := in.Peek(3); err == nil && bytes.Equal(mark, []byte("\xEF\xBB\xBF")) {
		_, _ = in.Discard(len(mark)) // it was peeked at
	}
	first, err := in.Peek(1)
	if err != nil {
		return nil, fmt.Errorf("the file is empty: %w", err)
	}
	if first[0] == '{' {
		return &jsonBatch{in: in}, nil
	}
	return newCSVBatch(in)
}

// jsonBatch reads one object a line.
type jsonBatch struct {
	in   *bufio.Reader
	line int
}

func (b *jsonBatch) next() (item client.OwnershipAct, line int, err error) {
	for {
		text, err := b.in.ReadSlice('\n')
		if len(text) == 0 && err != nil {
			return item, b.line, err
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return item, b.line, fmt.Errorf("a line has more than %d bytes", maxBatchLine)
		}
		b.line++
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if d.Decode(&item) != nil || d.More() {
			return item, b.line, badRow("want one JSON object with members as the API's OwnershipAct has them")
		}
		return item, b.line, nil
	}
}

// csvBatch reads a CSV by the names of its columns.
type csvBatch struct {
	in      *csv.Reader
	columns []string
}

var batchColumns = []string{
	"action", "device", "joinEUI", "devEUI", "ownerToken", "netID", "nsid", "asID", "appSKey", "clearNwkKeys", "locked", "recipient", "expiresAt",
}

// resultColumns are of the results of a batch, which may be the next one's file.
var resultColumns = []string{"line", "status", "code", "reason"}

func newCSVBatch(in *bufio.Reader) (*csvBatch, error) {
	b := &csvBatch{in: csv.NewReader(in)}
	b.in.ReuseRecord = true
	b.in.TrimLeadingSpace = true
	b.in.FieldsPerRecord = -1
	if line, err := in.Peek(in.Buffered()); err == nil {
		head, _, _ := bytes.Cut(line, []byte("\n"))
		if bytes.Contains(head, []byte(";")) {
			b.in.Comma = ';'
		}
	}
	header, err := b.in.Read()
	if err != nil {
		return nil, fmt.Errorf("header line: %w", err)
	}
	for _, name := range header {
		if slices.Contains(resultColumns, name) {
			b.columns = append(b.columns, "")
			continue
		}
		i := slices.IndexFunc(batchColumns, func(known string) bool { return strings.EqualFold(known, strings.TrimSpace(name)) })
		if i < 0 {
			return nil, usagef("header line: a column is not known here; known are %s", strings.Join(batchColumns, ", "))
		}
		if slices.Contains(b.columns, batchColumns[i]) {
			return nil, usagef("header line: column %s is there twice", batchColumns[i])
		}
		b.columns = append(b.columns, batchColumns[i])
	}
	return b, nil
}

func (b *csvBatch) next() (item client.OwnershipAct, line int, err error) {
	record, err := b.in.Read()
	line, _ = b.in.FieldPos(0)
	if broken, ok := errors.AsType[*csv.ParseError](err); ok {
		return item, broken.StartLine, badRow("this line is no CSV: %v", broken.Err)
	}
	if err != nil {
		return item, line, err
	}
	if len(record) != len(b.columns) {
		return item, line, badRow("has %d fields, and the header has %d", len(record), len(b.columns))
	}
	row := make(map[string]string, len(record))
	for i, value := range record {
		row[b.columns[i]] = strings.TrimSpace(value)
	}
	item, err = batchItem(row)
	return item, line, err
}

// batchItem reads a row by the names of its columns.
func batchItem(row map[string]string) (item client.OwnershipAct, err error) {
	item.Action, item.OwnerToken = row["action"], row["ownerToken"]
	if item.Action != "" && !slices.Contains(batchActions, item.Action) {
		return item, badRow("action: want one of %s", strings.Join(batchActions, ", "))
	}
	wrong := ""
	read := func(name, want string, parse func(string) error) {
		if row[name] != "" && parse(row[name]) != nil && wrong == "" {
			wrong = name + ": want " + want
		}
	}
	read("device", "an id as dev_…", func(s string) (err error) { item.Device, err = joinery.ParseDeviceID(s); return err })
	read("joinEUI", "16 hexadecimal digits", func(s string) (err error) { item.JoinEUI, err = lorawan.ParseEUI64(s); return err })
	read("devEUI", "16 hexadecimal digits", func(s string) (err error) { item.DevEUI, err = lorawan.ParseEUI64(s); return err })
	read("recipient", "an id as org_…", func(s string) (err error) { item.Recipient, err = joinery.ParseOrgID(s); return err })
	read("expiresAt", "a day as 2027-01-31, or a time", func(s string) (err error) { item.ExpiresAt, err = parseUntil(s); return err })
	if len(item.OwnerToken) > 64 {
		wrong = "ownerToken: want at most 64 characters"
	}
	if wrong != "" {
		return item, badRow("%s", wrong)
	}
	item.Binding, err = rowBinding(row)
	return item, err
}

// rowBinding reads the columns of a binding; nil where the row has none.
func rowBinding(row map[string]string) (*client.NewBinding, error) {
	flags := bindingFlags{netID: row["netID"], nsid: row["nsid"], asID: row["asID"], appSKey: row["appSKey"]}
	for name, flag := range map[string]*bool{"clearNwkKeys": &flags.clearNwkKeys, "locked": &flags.locked} {
		switch strings.ToLower(row[name]) {
		case "":
		case "true", "yes", "1":
			*flag = true
		case "false", "no", "0":
		default:
			return nil, badRow("%s: want true or false", name)
		}
	}
	b, err := flags.optional()
	if err != nil {
		return nil, badRow("binding: want netID, 6 hexadecimal digits; nsid, 16; asID, or appSKey clear; appSKey clear, wrapped or session-key-id")
	}
	return b, nil
}
