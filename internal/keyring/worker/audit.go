package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Entry is a line of a worker's own audit file: one answer that carries keys.
// There is no key in it.
type Entry struct {
	Time      time.Time `json:"time"`
	Verb      string    `json:"verb"`
	Device    string    `json:"device"`
	KeySet    string    `json:"keySet,omitempty"`
	DevEUI    string    `json:"devEUI,omitempty"`
	JoinEUI   string    `json:"joinEUI,omitempty"`
	JoinNonce uint32    `json:"joinNonce,omitempty"`
	NetID     string    `json:"netID,omitempty"`
	NSKEK     string    `json:"nsKEK,omitempty"`
	ASKEK     string    `json:"asKEK,omitempty"`
	ClearNwk  bool      `json:"clearNwk,omitempty"`
	ClearApp  bool      `json:"clearApp,omitempty"`
}

// Audit writes entries to a file, durably: Record returns when its line is on the
// disk. Lines that come while another is written share the next write.
type Audit struct {
	file  *os.File
	lines chan line
	stop  chan struct{}
	ended sync.WaitGroup
}

type line struct {
	text []byte
	done chan error
}

var errAuditClosed = errors.New("the audit file is closed")

// OpenAudit opens a file to append to, readable by its user alone.
func OpenAudit(path string) (*Audit, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keys.pkcs11.audit_file: %w", err)
	}
	a := &Audit{file: file, lines: make(chan line), stop: make(chan struct{})}
	a.ended.Go(a.write)
	return a, nil
}

// Record writes an entry. Whoever stops waiting does not know whether it is there.
func (a *Audit) Record(ctx context.Context, e Entry) error {
	e.Time = time.Now().UTC()
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	l := line{append(text, '\n'), make(chan error, 1)}
	select {
	case a.lines <- l:
	case <-ctx.Done():
		return ctx.Err()
	case <-a.stop:
		return errAuditClosed
	}
	select {
	case err := <-l.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write writes what comes until the end.
func (a *Audit) write() {
	torn := false // the last write may have ended within a line
	for {
		var batch []line
		select {
		case l := <-a.lines:
			batch = a.more([]line{l})
		case <-a.stop:
			return
		}
		var text []byte
		if torn {
			text = append(text, '\n')
		}
		for _, l := range batch {
			text = append(text, l.text...)
		}
		_, err := a.file.Write(text)
		torn = err != nil
		if err == nil {
			err = a.file.Sync()
		}
		for _, l := range batch {
			l.done <- err
		}
	}
}

// more takes what waits already.
func (a *Audit) more(batch []line) []line {
	for {
		select {
		case l := <-a.lines:
			batch = append(batch, l)
		default:
			return batch
		}
	}
}

// Close ends the file. Nothing is recorded after it.
func (a *Audit) Close() error {
	close(a.stop)
	a.ended.Wait()
	return a.file.Close()
}
