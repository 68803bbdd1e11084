package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/internal/keyring"
	"joinery/lorawan"
)

// giving gives out the same key always, or fails.
type giving struct {
	keyring.Verbs
	err  error
	last []byte // of the key in the last answer
}

func (g *giving) Accept(context.Context, keyring.AcceptRequest) (keyring.Answer, error) {
	if g.err != nil {
		return keyring.Answer{}, g.err
	}
	g.last = bytes.Repeat([]byte{7}, 16)
	return keyring.Answer{NwkSKey: keyring.Envelope{AESKey: g.last}}, nil
}

func (g *giving) AppSKey(context.Context, joinery.KeySet, joinery.Activation, joinery.KEK) (keyring.Envelope, error) {
	return keyring.Envelope{AESKey: bytes.Repeat([]byte{7}, 24)}, g.err
}

func (g *giving) OwnerToken(context.Context, joinery.DeviceID, uint32) (string, error) {
	return "token", g.err
}

func (g *giving) Close() error { return nil }

func derivedSet(devEUI uint64) joinery.KeySet {
	return joinery.KeySet{Origin: joinery.OriginDerived, Master: "m", DevEUI: lorawan.EUI64FromUint64(devEUI), ID: 1, DeviceID: 2, Generation: 1}
}

// A device gets so many answers in a minute, however the server names it; others
// are not concerned.
func TestGuardLimits(t *testing.T) {
	var log bytes.Buffer
	const most = 5
	g := Guard(&giving{}, GuardOptions{PerMinute: most, Log: slog.New(slog.NewTextHandler(&log, nil))})
	ctx := t.Context()
	for i := range most {
		ks := derivedSet(1) // what the keys do not depend on can be invented
		ks.ID, ks.DeviceID, ks.Generation = joinery.KeySetID(i), joinery.DeviceID(i), uint32(i)
		_, err := g.Accept(ctx, keyring.AcceptRequest{KeySet: ks})
		must(t, err)
	}
	for range 3 {
		if _, err := g.Accept(ctx, keyring.AcceptRequest{KeySet: derivedSet(1)}); !errors.Is(err, keyring.ErrLimit) {
			t.Errorf("one more: %v", err)
		}
	}
	if _, err := g.AppSKey(ctx, derivedSet(1), joinery.Activation{}, joinery.KEK{}); !errors.Is(err, keyring.ErrLimit) {
		t.Errorf("another verb: %v", err)
	}
	for _, ks := range []joinery.KeySet{derivedSet(2), {Origin: joinery.OriginSealed, ID: 1, DevEUI: lorawan.EUI64FromUint64(1)}} {
		if _, err := g.Accept(ctx, keyring.AcceptRequest{KeySet: ks}); err != nil {
			t.Errorf("another device: %v", err)
		}
	}
	for range most {
		_, err := g.OwnerToken(ctx, 1, 1)
		must(t, err)
	}
	if _, err := g.OwnerToken(ctx, 1, 1); !errors.Is(err, keyring.ErrLimit) {
		t.Errorf("an owner token: %v", err)
	}
	if n := strings.Count(log.String(), "per_minute=5"); n != 2 {
		t.Errorf("it was told %d times:\n%s", n, log.String())
	}
}

// What fails gives nothing out and counts for nothing: frames by radio use up no
// device's answers.
func TestGuardCountsNoFailures(t *testing.T) {
	keys := &giving{err: keyring.ErrMIC}
	g := Guard(keys, GuardOptions{PerMinute: 1})
	for range 10 {
		if _, err := g.Accept(t.Context(), keyring.AcceptRequest{KeySet: derivedSet(1)}); !errors.Is(err, keyring.ErrMIC) {
			t.Fatal(err)
		}
	}
	keys.err = nil
	_, err := g.Accept(t.Context(), keyring.AcceptRequest{KeySet: derivedSet(1)})
	must(t, err)
}

func TestLimitFillsAgainAndForgets(t *testing.T) {
	l := newLimit(60, nil)
	now := time.Now()
	for range 60 {
		if !l.take(owner{id: 1}, now) {
			t.Fatal("refused within the limit")
		}
	}
	if l.take(owner{id: 1}, now) || l.take(owner{id: 1}, now.Add(500*time.Millisecond)) {
		t.Error("given beyond the limit")
	}
	if !l.take(owner{id: 1}, now.Add(2*time.Second)) {
		t.Error("a second later there is one again")
	}
	if l.take(owner{id: 2}, now.Add(3*time.Minute)); len(l.owners) != 1 {
		t.Errorf("%d owners are remembered", len(l.owners))
	}
	if l := newLimit(0, nil); !l.take(owner{}, now) || len(l.owners) != 0 {
		t.Error("no limit is one")
	}
}

// Each answer is in the audit file before anybody has it; one that cannot be there
// is not given.
func TestGuardRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	audit, err := OpenAudit(path)
	must(t, err)
	keys := &giving{}
	g := Guard(keys, GuardOptions{Audit: audit})
	var busy sync.WaitGroup
	const times = 50
	for range times {
		busy.Go(func() {
			if _, err := g.AppSKey(context.Background(), derivedSet(0xABC), joinery.Activation{JoinNonce: 9}, joinery.KEK{Label: "as"}); err != nil {
				t.Error(err)
			}
		})
	}
	busy.Wait()
	text, err := os.ReadFile(path)
	must(t, err)
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if len(lines) != times {
		t.Fatalf("%d lines", len(lines))
	}
	for _, line := range lines {
		var e Entry
		must(t, json.Unmarshal(line, &e))
		if e.Verb != "appskey" || e.DevEUI != "0000000000000ABC" || e.JoinNonce != 9 || e.ASKEK != "as" || e.Time.IsZero() {
			t.Errorf("%s", line)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	must(t, audit.file.Close()) // as a disk that is gone
	answer, err := g.Accept(t.Context(), keyring.AcceptRequest{KeySet: derivedSet(1)})
	if !errors.Is(err, keyring.ErrToken) || !errors.Is(err, fs.ErrClosed) || answer.NwkSKey.AESKey != nil {
		t.Errorf("without a record: %+v, %v", answer, err)
	}
	if !bytes.Equal(keys.last, make([]byte, 16)) {
		t.Error("the key of an answer that was not given is still there")
	}
	_ = g.Close()
	if _, err := g.OwnerToken(t.Context(), 1, 1); !errors.Is(err, errAuditClosed) {
		t.Errorf("after its end: %v", err)
	}
}

func TestOpenAuditSaysWhichSetting(t *testing.T) {
	if _, err := OpenAudit(filepath.Join(t.TempDir(), "none", "audit")); err == nil || !strings.Contains(err.Error(), "keys.pkcs11.audit_file") {
		t.Errorf("%v", err)
	}
}
