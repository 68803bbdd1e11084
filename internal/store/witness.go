package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"joinery"
	"joinery/lorawan"
)

// A backup knows nothing of the confirmations that follow it. Were the same one
// restored twice, each confirmation alike would give out the same JoinNonces. So
// outside of the database stands how high confirmations have raised them, in a
// witness for each line of states that come from one another. A line is known by
// its operator's organisation, which every copy of it keeps.

// witness is the directories that hold the witness.
type witness []string

func (o Options) witness() witness {
	dirs := o.Witnesses
	if o.URL == "" {
		dirs = append([]string{filepath.Dir(o.Path)}, dirs...)
	}
	return dirs
}

func witnessName(line joinery.OrgID) string { return "confirmed-" + line.String() }

// witnessForm is the content of a witness: the sum of all jumps.
const witnessForm = "JoinNonces of this Join Server rose by %d in all; keep this file"

// read gives the sum of all jumps of a line as the highest witness has it; false
// where there is none.
func (w witness) read(line joinery.OrgID) (floor lorawan.JoinNonce, found bool, err error) {
	for _, dir := range w {
		name := filepath.Join(dir, witnessName(line))
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, false, err
		}
		var n lorawan.JoinNonce
		if _, err := fmt.Sscanf(string(b), witnessForm, &n); err != nil || n > lorawan.MaxJoinNonce {
			return 0, false, fmt.Errorf("%s: it cannot be read; put it back from a copy, or remove it and say how many confirmations there were", name)
		}
		floor, found = max(floor, n), true
	}
	return floor, found, nil
}

// write notes the sum of all jumps in every directory. One that has no witness
// and takes none is left out; a witness that cannot be raised is an error,
// because it would be believed the next time. It tells whether any holds it.
func (w witness) write(line joinery.OrgID, floor lorawan.JoinNonce) (held bool, err error) {
	for _, dir := range w {
		here := witness{dir}
		was, found, err := here.read(line)
		if err != nil {
			return held, err
		}
		if !found || was < floor {
			content := fmt.Appendf(nil, witnessForm+"\n", floor)
			// Servers of another user must be able to read it.
			err = renameio.WriteFile(filepath.Join(dir, witnessName(line)), content, 0o644, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o644))
			if err == nil {
				err = syncDir(dir)
			}
		}
		switch {
		case err == nil:
			held = true
		case found:
			return held, err
		}
	}
	return held, nil
}

// bearWitness notes the jumps of a database that answers joins, or is about to,
// and tells whether any place holds that note.
func (d *DB) bearWitness(ctx context.Context) (held bool, err error) {
	var floor lorawan.JoinNonce
	err = d.engine.read(ctx, func(c conn) error {
		s, _, err := c.storeRow()
		floor = s.floor
		return err
	})
	if err != nil {
		return false, err
	}
	return d.witness.write(d.operator, floor)
}

// earlier gives by how much JoinNonces rose in states that came from that of s
// and are lost, beyond what s knows of.
func (w witness) earlier(s storeRow, o Confirmation, jump lorawan.JoinNonce) (lorawan.JoinNonce, error) {
	floor, found, err := w.read(s.operator)
	if err != nil {
		return 0, err
	}
	if !found && o.Earlier == nil {
		return 0, joinery.Errorf(joinery.CodeInvalid, "nothing here tells how often this state was confirmed before: "+
			"say with --earlier-confirmations how many were made since it was taken, anywhere (0 if this is the first)")
	}
	above := max(floor, s.floor) - s.floor
	if o.Earlier != nil {
		if *o.Earlier < 0 || *o.Earlier > int(lorawan.MaxJoinNonce) {
			return 0, joinery.Errorf(joinery.CodeInvalid, "%d earlier confirmations cannot be", *o.Earlier)
		}
		told := uint64(*o.Earlier) * uint64(max(jump, DefaultJump))
		above = max(above, lorawan.JoinNonce(min(told, uint64(lorawan.MaxJoinNonce))))
	}
	return above, nil
}
