package store

import (
	"fmt"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

// countingSession counts the statements that it runs.
type countingSession struct {
	session
	statements int
}

func (c *countingSession) one(query string, scan func(*row) error, args ...any) (bool, error) {
	c.statements++
	return c.session.one(query, scan, args...)
}

func (c *countingSession) each(query string, scan func(*row) error, args ...any) error {
	c.statements++
	return c.session.each(query, scan, args...)
}

func (c *countingSession) changes(query string, args ...any) (int, error) {
	c.statements++
	return c.session.changes(query, args...)
}

// Everything else waits while refusals are written, over all servers, so a full
// batch takes a handful of statements rather than some of each row.
func TestRefusalsTakeFewStatements(t *testing.T) {
	d, states := withDevices(t, newOptions(t), 32)
	peer := addTestPeer(t, d)
	var known, named, unknown, totals []joinery.RefusalCount
	for n, s := range states {
		c := joinery.RefusalCount{Count: 1, First: testTime, Refusal: joinery.Refusal{At: testTime, Peer: peer, Reason: joinery.RefusedOptNeg,
			Received: joinery.Received{JoinEUI: s.Device.JoinEUI, DevEUI: s.Device.DevEUI}}}
		named = append(named, c)
		c.Device, c.Owner = s.Device.ID, s.Device.Ownership.Org
		known = append(known, c)
		c.Received.DevEUI = lorawan.EUI64{0xFF, byte(n)}
		unknown = append(unknown, c)
		c.Reason = joinery.RefusalReasons[n]
		totals = append(totals, c)
	}
	for _, what := range []struct {
		name string
		joinery.RefusalBatch
		most int
	}{
		{"devices", joinery.RefusalBatch{Devices: append(known, named...)}, 13},
		{"devices and unknown", joinery.RefusalBatch{Devices: known, Unknown: unknown}, 13},
		{"unknown and totals", joinery.RefusalBatch{Unknown: unknown, Peers: totals}, 4},
	} {
		var counter countingSession
		err := d.do(t.Context(), func(tx *tx) error {
			counter.session = tx.session
			tx.session = &counter
			defer func() { tx.session = counter.session }()
			return inOrder(
				func() error { return tx.countPeers(what.Peers) },
				func() error { return tx.countUnknown(what.Unknown) },
				func() error { return tx.countDevices(what.Devices) },
			)
		})
		if err != nil {
			t.Fatal(err)
		}
		if counter.statements > what.most {
			t.Errorf("%s: %d statements, want at most %d", what.name, counter.statements, what.most)
		}
	}
	// One row for what came with the device's id and what came without.
	list, err := d.DeviceRefusals(t.Context(), states[0].Device.ID)
	if err != nil || len(list) != 1 || list[0].Count != 3 {
		t.Errorf("%v, %+v", err, list)
	}
}

// A peer that has too many rows loses its oldest ones.
func TestPeersRefusalsAreBounded(t *testing.T) {
	d, states := withDevices(t, newOptions(t), 2)
	peer := addTestPeer(t, d)
	full := states[0].Device
	err := d.do(t.Context(), func(tx *tx) error {
		return tx.exec(`WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)
			INSERT INTO refusal_device (device, owner, peer, reason, count, first_at, last_at, received, decided)
			SELECT ?, ?, ?, i, 1, i, i, '{}', '{}' FROM n`, joinery.MaxPeerRefusals, full.ID, full.Ownership.Org, peer)
	})
	if err != nil {
		t.Fatal(err)
	}
	c := joinery.RefusalCount{Count: 1, First: testTime, Refusal: joinery.Refusal{At: testTime, Peer: peer, Reason: joinery.RefusedMIC,
		Device: states[1].Device.ID, Owner: states[1].Device.Ownership.Org}}
	if err := d.RecordRefusals(t.Context(), joinery.RefusalBatch{Devices: []joinery.RefusalCount{c}}); err != nil {
		t.Fatal(err)
	}
	old, err := d.DeviceRefusals(t.Context(), full.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(old), joinery.MaxPeerRefusals-peerRoom-1; got != want || old[0].Reason != joinery.RefusalReason(fmt.Sprint(joinery.MaxPeerRefusals)) {
		t.Errorf("%d rows are left, want %d; the newest is %s", got, want, old[0].Reason)
	}
	if list, err := d.DeviceRefusals(t.Context(), states[1].Device.ID); err != nil || len(list) != 1 {
		t.Errorf("%v, %+v", err, list)
	}
}

// Runs are as few as powers of two allow, and leave nothing out.
func TestInRuns(t *testing.T) {
	for n, want := range map[int]string{0: "", 1: "1 ", 7: "4 2 1 ", 64: "64 ", 200: "64 64 64 8 "} {
		got, sum := "", 0
		err := inRuns(make([]int, n), func(run []int) error {
			got += fmt.Sprint(len(run), " ")
			sum += len(run)
			return nil
		})
		if err != nil || got != want || sum != n {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func addTestPeer(t *testing.T, d *DB) joinery.PeerID {
	t.Helper()
	p := joinery.Peer{ID: joinery.NewPeerID(), Name: "network", CreatedAt: time.Now()}
	if err := d.AddPeer(t.Context(), p, nil, joinery.AuditEntry{}); err != nil {
		t.Fatal(err)
	}
	return p.ID
}
