package joinery

import (
	"testing"
	"time"

	"joinery/lorawan"
)

// TestTagsFollowWhatPeopleSet: every setting moves the tag, and a join does not.
func TestTagsFollowWhatPeopleSet(t *testing.T) {
	device := func(change func(*ActivationState)) string {
		s := ActivationState{Device: Device{ID: 1, Ownership: Ownership{Org: 2}}, KeySet: KeySet{ID: 3}, Binding: &Binding{Epoch: 1}}
		change(&s)
		return s.Tag()
	}
	first := device(func(*ActivationState) {})
	if got := device(func(s *ActivationState) {
		s.Device.LastJoinAt, s.KeySet.Nonces.JoinNonce, s.KeySet.Version = time.Unix(1, 0), 7, 9
	}); got != first {
		t.Errorf("a join moves the tag")
	}
	for name, change := range map[string]func(*ActivationState){
		"owner":      func(s *ActivationState) { s.Device.Ownership.Org = 9 },
		"epoch":      func(s *ActivationState) { s.Device.Ownership.Epoch = 9 },
		"token":      func(s *ActivationState) { s.Device.Ownership.TokenGeneration = 9 },
		"suspension": func(s *ActivationState) { s.Device.Suspended = true },
		"disclosure": func(s *ActivationState) { s.Device.Disclosed = true },
		"binding":    func(s *ActivationState) { s.Binding.Epoch = 2 },
		"lock":       func(s *ActivationState) { s.Binding.Locked = true },
		"unbinding":  func(s *ActivationState) { s.Binding = nil },
		"reset":      func(s *ActivationState) { s.KeySet.Nonces.ResetAt = time.Unix(5, 0) },
	} {
		if device(change) == first {
			t.Errorf("%s does not move the tag", name)
		}
	}
	peer := func(change func(*Peer)) string {
		p := Peer{ID: 1, Name: "a b", NetIDs: []lorawan.NetID{{1}, {2}}, Credentials: []Credential{{Kind: CredentialSPKI}}}
		change(&p)
		return p.Tag()
	}
	same := peer(func(*Peer) {})
	if peer(func(p *Peer) { p.NetIDs = []lorawan.NetID{{2}, {1}} }) != same {
		t.Error("the order of NetIDs moves a peer's tag")
	}
	for name, change := range map[string]func(*Peer){
		"name":        func(p *Peer) { p.Name = "a  b" },
		"NetIDs":      func(p *Peer) { p.NetIDs = p.NetIDs[:1] },
		"AS-IDs":      func(p *Peer) { p.ASIDs = []string{"as"} },
		"credentials": func(p *Peer) { p.Credentials = append(p.Credentials, p.Credentials...) },
		"clear keys":  func(p *Peer) { p.ClearKeys = true },
		"policy":      func(p *Peer) { p.AppSKeyAtLeast = AppSKeyByID },
		"suspension":  func(p *Peer) { p.Suspended = true },
	} {
		if peer(change) == same {
			t.Errorf("%s does not move the tag of a peer", name)
		}
	}
}
