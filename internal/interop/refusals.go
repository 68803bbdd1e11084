package interop

import (
	"sync"
	"time"

	"joinery"
	"joinery/backend"
	"joinery/lorawan"
)

// Recorder keeps refused requests, to be explained later. Record must not wait
// for anything, and keeps nothing of x after it returned.
type Recorder interface {
	Record(x *joinery.Refusal)
}

// maxKept bounds text that a peer chose and that is kept.
const maxKept = 64

// record hands over a refused request: what it said, and why it was refused.
func (s *Server) record(x *exchange, err error) {
	if s.opt.Refusals == nil {
		return
	}
	why := joinery.RefusedOf(err)
	r := &x.request
	x.refusal = joinery.Refusal{
		At: s.now(), Peer: x.peer.ID, Device: why.Device, Owner: why.Owner, Reason: why.Reason, Decided: why.Decided,
		Received: joinery.Received{
			Message: r.MessageType.String(), ProtocolVersion: string(r.ProtocolVersion), TransactionID: r.TransactionID,
			SenderID: r.SenderID[:min(len(r.SenderID), maxKept)], ReceiverID: r.ReceiverID[:min(len(r.ReceiverID), maxKept)],
			NetID: r.NetID, NSID: r.NSID, JoinEUI: r.JoinEUI, DevEUI: r.DevEUI,
			MACVersion: r.MACVersion, OptNeg: r.DLSettings.OptNeg(),
		},
	}
	readFrame(r, &x.refusal.Received)
	switch why.Reason {
	case joinery.RefusedMalformed, joinery.RefusedProtocolVersion, joinery.RefusedEUIMismatch, joinery.RefusedFrame:
		x.refusal.Received.Problem = joinery.MessageOf(err) // our own words
	}
	s.opt.Refusals.Record(&x.refusal)
}

// readFrame reads which frame it was and its counter; nothing for another frame.
func readFrame(r *backend.Request, to *joinery.Received) {
	switch r.MessageType {
	case backend.TypeJoinReq:
		if f, err := lorawan.ParseJoinRequest(r.PHYPayload); err == nil {
			to.Frame, to.Count = "join", uint16(f.DevNonce)
		}
	case backend.TypeRejoinReq:
		if f, err := lorawan.ParseRejoinRequest(r.PHYPayload); err == nil {
			to.Frame, to.Count = rejoinText[f.Type], uint16(f.RJCount)
		}
	}
}

var rejoinText = map[lorawan.RejoinType]string{lorawan.Rejoin0: "rejoin-0", lorawan.Rejoin1: "rejoin-1", lorawan.Rejoin2: "rejoin-2"}

// refuseUnread answers a request of a known peer to which the protocol has no
// answer.
func (s *Server) refuseUnread(x *exchange, status int, problem string) {
	if s.opt.Refusals != nil {
		x.refusal = joinery.Refusal{At: s.now(), Peer: x.peer.ID, Reason: joinery.RefusedUnreadable, Received: joinery.Received{Problem: problem}}
		s.opt.Refusals.Record(&x.refusal)
	}
	x.refuse(status, backend.MalformedRequest, problem)
}

// maxLines bounds the log: refusals of one peer with one code in a second. More
// are only counted.
const maxLines = 10

// chatter is how many refusals were logged in the present second.
type chatter struct {
	mu     sync.Mutex
	since  time.Time
	lines  map[chat]int
	unsaid int // since the last line
}

type chat struct {
	peer joinery.PeerID
	code joinery.Code
}

// allow tells whether a refusal may be logged, and how many were not since the
// last that was.
func (c *chatter) allow(now time.Time, peer joinery.PeerID, code joinery.Code) (unsaid int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := now.Sub(c.since); c.lines == nil || age < 0 || age >= time.Second {
		c.since, c.lines = now, make(map[chat]int)
	}
	if c.lines[chat{peer, code}]++; c.lines[chat{peer, code}] > maxLines {
		c.unsaid++
		return 0, false
	}
	unsaid, c.unsaid = c.unsaid, 0
	return unsaid, true
}
