package provisioning

import (
	"sync"
	"time"

	"joinery"
)

// Bounds of dry runs, which live in memory: of one organisation, so that nobody
// takes the room of another.
const (
	maxDryRuns = 16
	dryRunLife = time.Hour
)

// dryRuns are the imports that only look.
type dryRuns struct {
	mu   sync.Mutex
	runs map[joinery.ImportID]*dryRun
}

type dryRun struct {
	state joinery.Import
	until time.Time
}

// begin makes a dry run; where its organisation has as many as it may, the one
// nearest its end makes room.
func (d *dryRuns) begin(i joinery.Import, now time.Time) joinery.Import {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.runs == nil {
		d.runs = make(map[joinery.ImportID]*dryRun)
	}
	var oldest joinery.ImportID
	own := 0
	for id, run := range d.runs {
		switch {
		case now.After(run.until):
			delete(d.runs, id)
		case run.state.Org != i.Org:
		default:
			own++
			if oldest == 0 || run.until.Before(d.runs[oldest].until) {
				oldest = id
			}
		}
	}
	if own >= maxDryRuns {
		delete(d.runs, oldest)
	}
	i.ID = joinery.NewImportID()
	d.runs[i.ID] = &dryRun{i, now.Add(dryRunLife)}
	return i
}

func (d *dryRuns) find(id joinery.ImportID, now time.Time) (*dryRun, joinery.Import, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	run, ok := d.runs[id]
	if !ok || now.After(run.until) {
		return nil, joinery.Import{}, false
	}
	return run, run.state, true
}

// move counts the rows of one chunk; CodeConflict where another chunk was
// counted meanwhile.
func (d *dryRuns) move(run *dryRun, rows joinery.ImportRows, results []joinery.RowResult) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if run.state.Next != rows.From || run.state.Done {
		return wrongRow(run.state)
	}
	run.state.Next += rows.Count
	run.state.Done = rows.Last
	for _, r := range results {
		switch r.Status {
		case joinery.RowCreated:
			run.state.Created++
		case joinery.RowUnchanged:
			run.state.Unchanged++
		case joinery.RowFailed, joinery.RowConflict:
			run.state.Failed++
		}
	}
	return nil
}
