package bus

import (
	"encoding/binary"
	"errors"
	"io"
	"time"

	"joinery/internal/sim/chip"
)

// Client is a host's side of the bare transactions: a driver as it should be, which
// wakes, polls, checks CRCs, lets the chip idle, and does again what went wrong on the
// wire. It carries commands out one at a time.
type Client struct {
	conn    io.ReadWriter
	address byte
}

// How patient a client is.
const (
	clientTries = 4
	clientPolls = 400
	clientPause = time.Millisecond
)

// NewClient makes a client of a connection, for a chip of this address of 7 bits.
func NewClient(conn io.ReadWriter, address byte) *Client { return &Client{conn, address} }

// Execute carries out a command packet and gives the response packet; nil where the
// chip did not answer however often it was asked.
//
// A command whose answer was lost is sent again. That is right for those that join:
// they do the same twice.
func (c *Client) Execute(packet []byte) []byte {
	for range clientTries {
		answer, err := c.once(packet)
		if err == nil {
			return answer
		}
	}
	return nil
}

var errNoAnswer = errors.New("bus: the chip does not answer")

// once is one command with its wake and its idle.
func (c *Client) once(packet []byte) (answer []byte, err error) {
	if _, _, err := c.transact(frameWrite, 0, nil, 0); err != nil {
		return nil, err
	}
	awake, ok, err := c.transact(frameRead, c.address, nil, chip.MinResponse)
	if err != nil {
		return nil, err
	}
	if _, err := chip.Answer(awake); !ok || !errors.Is(err, chip.Awake) {
		return nil, errNoAnswer
	}
	if _, ok, err := c.transact(frameWrite, c.address, append([]byte{wordCommand}, packet...), 0); err != nil || !ok {
		return nil, errors.Join(err, errNoAnswer)
	}
	defer func() {
		_, _, idle := c.transact(frameWrite, c.address, []byte{wordIdle}, 0)
		err = errors.Join(err, idle)
	}()
	for range clientPolls {
		count, ok, err := c.transact(frameRead, c.address, nil, 1)
		if err != nil {
			return nil, err
		}
		if !ok || count[0] == 0xFF {
			time.Sleep(clientPause)
			continue
		}
		rest, ok, err := c.transact(frameRead, c.address, nil, max(int(count[0]), chip.MinResponse)-1)
		if err != nil || !ok {
			return nil, errors.Join(err, errNoAnswer)
		}
		answer = append(count, rest...)
		if _, err := chip.Answer(answer); errors.Is(err, chip.BadCRC) || errors.Is(err, chip.Awake) {
			return nil, errNoAnswer
		}
		return answer, nil
	}
	return nil, errNoAnswer
}

// transact does one transaction, and tells whether it was acknowledged.
func (c *Client) transact(kind, address byte, data []byte, length int) (got []byte, ok bool, err error) {
	if kind == frameWrite {
		length = len(data)
	}
	m := append(binary.BigEndian.AppendUint16([]byte{kind, address}, uint16(length)), data...)
	if _, err := c.conn.Write(m); err != nil {
		return nil, false, err
	}
	var ack [1]byte
	if _, err := io.ReadFull(c.conn, ack[:]); err != nil || ack[0] == 0 {
		return nil, false, err
	}
	if kind == frameRead {
		got = make([]byte, length)
		_, err = io.ReadFull(c.conn, got)
	}
	return got, true, err
}
