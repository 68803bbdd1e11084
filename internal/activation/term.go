package activation

import (
	"time"

	"joinery"
)

// checkTerm refuses a join of a device whose service has lapsed. It is looked at
// here and nowhere else: sessions that run go on, so rejoin-requests are answered,
// and what a session was given can be fetched. A repeat of what was accepted
// before the end is no new join.
func (s *Service) checkTerm(d joinery.Device) error {
	if s.terms == nil || !d.Service.Lapsed(s.now()) || !s.terms.Lapses() {
		return nil
	}
	return &joinery.Refused{
		Reason:  joinery.RefusedLapsed,
		Decided: joinery.Decided{ServiceEnd: d.Service.EndsAt.UTC().Format(time.RFC3339)},
		Err:     joinery.Errorf(joinery.CodeLapsed, "the service of the device has lapsed; its owner can extend it"),
	}
}

// begin gives the term that begins with a device's first activation; nil for
// every other.
func (s *Service) begin(d joinery.Device, at time.Time) *joinery.ServiceBegin {
	if s.terms == nil || !d.Service.EndsAt.IsZero() {
		return nil
	}
	plan, ok := s.terms.Begins(d.Maker, d.JoinEUI)
	if !ok {
		return nil
	}
	return &joinery.ServiceBegin{Plan: plan, Term: d.Service.Begin(plan, at), Maker: d.Maker}
}
