package handover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// message is one step of the conversation: a line of JSON, with descriptors
// beside it where the step has some.
type message struct {
	Step     string       `json:"step"`
	Database string       `json:"database,omitempty"`
	Sockets  []socketName `json:"sockets,omitempty"` // of the descriptors, in order
	Reason   string       `json:"reason,omitempty"`
}

type socketName struct {
	Name string `json:"name"`
	Kept bool   `json:"kept,omitempty"`
}

const (
	stepHello   = "hello"
	stepSockets = "sockets"
	stepRefused = "refused"
	stepYield   = "yield"
	stepYielded = "yielded"
	stepWorking = "working"
	stepServing = "serving"

	maxMessage     = 4096
	maxDescriptors = 16
)

// line is one end of the conversation, in which each speaks in turn, but for
// stepWorking.
type line struct {
	conn *net.UnixConn

	// What was read beyond the last message, and the descriptors that came with it.
	// The kernel reads no further than the first that has some.
	text  []byte
	files []*os.File
}

func (l *line) send(m message, descriptors ...int) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var rights []byte
	if len(descriptors) > 0 {
		rights = unix.UnixRights(descriptors...)
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	_, _, err = l.conn.WriteMsgUnix(append(text, '\n'), rights, nil)
	return err
}

// receive reads one message until ctx ends, and the descriptors beside it, which
// are the caller's to close. An end of the conversation is io.EOF.
func (l *line) receive(ctx context.Context) (m message, files []*os.File, err error) {
	defer l.until(ctx)()
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
			if ctx.Err() != nil {
				err = ctx.Err()
			}
		}
	}()
	buf, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxDescriptors))
	for !bytes.Contains(l.text, []byte{'\n'}) {
		n, r, _, _, err := l.conn.ReadMsgUnix(buf, rights)
		more, rightsErr := readRights(rights[:r])
		l.files = append(l.files, more...)
		switch {
		case err != nil:
			return m, nil, err
		case rightsErr != nil:
			return m, nil, rightsErr
		case n == 0:
			return m, nil, io.EOF
		}
		if l.text = append(l.text, buf[:n]...); len(l.text) > 2*maxMessage {
			return m, nil, errors.New("the message is too long")
		}
	}
	text, rest, _ := bytes.Cut(l.text, []byte{'\n'})
	if l.text = rest; len(rest) == 0 {
		files, l.files = l.files, nil
	}
	return m, files, json.Unmarshal(text, &m)
}

// close ends the conversation.
func (l *line) close() error {
	closeAll(l.files)
	l.files = nil
	return l.conn.Close()
}

// until ends reading with ctx; what it gives must be called after reading.
func (l *line) until(ctx context.Context) (done func()) {
	_ = l.conn.SetReadDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetReadDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

func readRights(b []byte) (files []*os.File, err error) {
	if len(b) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return nil, fmt.Errorf("read descriptors: %w", err)
	}
	for i := range messages {
		descriptors, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // not descriptors
		}
		for _, fd := range descriptors {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "inherited"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

func refused(m message) error { return fmt.Errorf("the running server refuses: %s", m.Reason) }

// expect reads the next message, which must be of one of the steps.
func (l *line) expect(ctx context.Context, steps ...string) (message, []*os.File, error) {
	m, files, err := l.receive(ctx)
	if err != nil {
		return m, nil, err
	}
	for _, step := range steps {
		if m.Step == step {
			return m, files, nil
		}
	}
	closeAll(files)
	if m.Step == stepRefused {
		return m, nil, refused(m)
	}
	return m, nil, fmt.Errorf("the other server says %q where %v belongs", m.Step, steps)
}
