package sim

import (
	"context"

	"joinery/lorawan"
)

// HomeNSOptions say what must come of a HomeNSReq.
type HomeNSOptions struct {
	JoinEUI lorawan.EUI64
	DevEUI  lorawan.EUI64
	// Expect is the ResultCode that must come; "" is Success.
	Expect string
	// HNetID is the home network that must be named.
	HNetID lorawan.NetID
}

// HomeNS is the answer to a HomeNSReq, checked.
type HomeNS struct {
	Checks      Checks
	Request     []byte
	Reply       *Reply
	ResultCode  string
	Description string
	HNetID      string
	HNSID       string
}

// AskHomeNS asks the Join Server which network is a device's home.
func (n *NS) AskHomeNS(ctx context.Context, o HomeNSOptions) (*HomeNS, error) {
	q := n.request(homeNSReq, o.JoinEUI)
	h := &HomeNS{Request: q.appendHomeNS(nil, o.DevEUI)}
	var err error
	if h.Reply, err = n.link.Send(ctx, h.Request); err != nil {
		return nil, err
	}
	a := checkForm(&h.Checks, ByNS, &q, h.Reply, expected(o.Expect))
	if a == nil {
		return h, nil
	}
	h.ResultCode, h.Description, h.HNetID, h.HNSID = a.ResultCode, a.Description, a.HNetID, a.HNSID
	if a.ResultCode == ResultSuccess {
		if !h.Checks.add(ByNS, CheckHomeNetwork, sameBinary(a.HNetID, o.HNetID[:])) {
			h.Checks.becausef("want %v, got %q", o.HNetID, a.HNetID)
		}
	} else {
		h.Checks.add(ByNS, CheckHomeNetwork, a.HNetID == "" && a.HNSID == "")
	}
	return h, nil
}
