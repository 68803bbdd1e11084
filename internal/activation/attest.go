package activation

import "joinery"

// checkAttested refuses an activation of a device that has shown less of its element
// and firmware than its owner wants. All that it looks at came with the device, or
// is in memory. What a device showed ends by this server's clock; where that was set
// back, nothing is valid (see joinery.Attested). Rejoins are activations, too; the
// session that a device has goes on without one.
//
// It does not hold who leaves: a device with an instruction to rekey gets it with a
// join-accept. A rejoin never carries one, and is refused with an order, too.
func (s *Service) checkAttested(d joinery.Device) error {
	if s.attested == nil {
		return nil
	}
	want := s.attested.PolicyOf(d.Ownership.Org).Rule(d)
	now := s.now()
	if want.Activate != joinery.AttestRefuse || !want.Broken(want.Counts(d.Attested, now)) {
		return nil
	}
	have, level := want.Compare(d.Attested, now)
	return &joinery.Refused{
		Reason:  joinery.RefusedAttestation,
		Decided: joinery.Decided{AttestLevel: have, AttestWanted: level},
		Err:     joinery.Errorf(joinery.CodeAttestation, "the device has not been attested as its owner wants"),
	}
}
