package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"joinery"
	"joinery/client"
)

// results is the file of what became of each row. Where an import goes on that was
// cut off, so does the file of the run before: what it lacks of the rows that the
// server took is asked for.
type results struct {
	*lineFile
	// behind is the row behind the last of which the file tells, last its result, and
	// end where that ends in the file.
	behind uint64
	last   client.RowResult
	end    int64
}

// openResults opens the file of an import that stands at next. Where that is the
// beginning it is made anew, else gone on with; where none is there, it gets the rows
// that this run sends.
func openResults(path string, next uint64) (r results, err error) {
	if path != "" && next > 0 {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			if err = r.read(bufio.NewReader(f), next); err != nil {
				return r, errors.Join(err, f.Close())
			}
			r.lineFile = &lineFile{f, bufio.NewWriter(f)}
			return r, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return r, err
		}
	}
	r.lineFile, err = newLineFile(path)
	r.behind = next
	return r, err
}

// read reads what the run before wrote of rows before next.
func (r *results) read(in *bufio.Reader, next uint64) error {
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // behind the last line, or within one that was cut off
		}
		if err != nil {
			return err
		}
		var row client.RowResult
		if json.Unmarshal(line, &row) != nil || row.Status == "" || row.Index < r.behind {
			return errors.New("the file is there, and holds something else than what became of this import's rows; name another")
		}
		if row.Index >= next {
			return nil // rows that are sent again
		}
		r.end += int64(len(line))
		r.behind, r.last = row.Index+1, row
	}
}

// passed is what the file of an import says of a row that the server has.
type passed struct {
	line   uint64
	serial string
}

func passedBy(index uint64, v row) passed {
	switch {
	case v.key != nil:
		return passed{line: v.key.Line}
	case v.line != "":
		return passed{line: index + 2}
	case v.entry != nil:
		return passed{line: index + 1, serial: serialOf(v.entry)}
	}
	return passed{}
}

// serialOf reads the serial number of an entry that the server has verified.
func serialOf(entry []byte) string {
	var e, p struct {
		Payload  string `json:"payload"`
		UniqueID string `json:"uniqueId"`
	}
	if json.Unmarshal(entry, &e) != nil {
		return ""
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(e.Payload, "="))
	if err != nil || json.Unmarshal(text, &p) != nil {
		return ""
	}
	return p.UniqueID
}

// completeResults writes what the run before did not of the rows that the server
// took: those of which its answer was lost, or not yet written.
func (j *importJob) completeResults(ctx context.Context) error {
	r := &j.notes.results
	if r.lineFile == nil {
		return nil
	}
	devices, err := j.takenBehind(ctx)
	if err != nil {
		return err
	}
	if err := r.f.Truncate(r.end); err != nil {
		return err
	}
	if _, err := r.f.Seek(r.end, io.SeekStart); err != nil {
		return err
	}
	if r.behind >= j.state.Next {
		return nil
	}
	refused := map[uint64]client.RowResult{}
	for row, err := range j.api.ImportErrors(ctx, j.state.ID, client.ImportErrorsQuery{}) {
		if err != nil {
			return err
		}
		if row.Index >= r.behind {
			refused[row.Index] = row
		}
	}
	for k, p := range j.passed {
		index := r.behind + uint64(k)
		row, found := refused[index]
		if id := devices[index]; !found && id != 0 {
			if row, err = j.taken(ctx, index, id, p); err != nil {
				return err
			}
		}
		if row.Status == "" {
			continue // of an import that an older server began
		}
		if err := r.write(row); err != nil {
			return err
		}
	}
	return nil
}

// takenBehind gives the devices of rows behind those of which the file tells, by
// index, and refuses the file of another import.
func (j *importJob) takenBehind(ctx context.Context) (map[uint64]joinery.DeviceID, error) {
	r := &j.notes.results
	devices := map[uint64]joinery.DeviceID{}
	if r.last.Status == "" && r.behind >= j.state.Next {
		return devices, nil // nothing to compare, and nothing to find
	}
	for d, err := range j.api.ImportedDevices(ctx, j.state.ID, client.ImportedDevicesQuery{}) {
		switch {
		case err != nil:
			return nil, err
		case d.Index == r.last.Index && r.last.Device != 0 && d.Device != r.last.Device:
			return nil, errors.New("results: the file holds those of another import; name another")
		case d.Index >= r.behind:
			devices[d.Index] = d.Device
		}
	}
	return devices, nil
}

// taken says again what became of a row whose device is there.
func (j *importJob) taken(ctx context.Context, index uint64, id joinery.DeviceID, p passed) (client.RowResult, error) {
	row := client.RowResult{Index: index, Line: p.line, Serial: p.serial, Device: id, Status: string(joinery.RowUnchanged)}
	d, err := j.api.Device(ctx, id)
	if problem, ok := errors.AsType[*client.Problem](err); ok && problem.Code == joinery.CodeNotFound {
		return row, nil // deleted, or somebody else's since
	}
	if err != nil {
		return row, fmt.Errorf("results of rows that were imported before: %w", err)
	}
	row.JoinEUI, row.DevEUI = d.JoinEUI, d.DevEUI
	if !d.CreatedAt.Before(j.state.CreatedAt) {
		row.Status = string(joinery.RowCreated)
	}
	return row, nil
}
