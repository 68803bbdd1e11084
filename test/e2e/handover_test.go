package e2e

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joinery/client"
	"joinery/internal/sim"
)

// answer reads the JSON that a command printed.
func answer[T any](s *scene, args ...string) (v T) {
	s.t.Helper()
	ok(s.t, json.Unmarshal([]byte(s.ctl(append(args, "--json")...)), &v))
	return v
}

// secretFile writes a secret for joinctl and gives its path.
func (s *scene) secretFile(secret string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "secret")
	ok(s.t, os.WriteFile(path, []byte(secret), 0o600))
	return path
}

func (s *scene) organisation(name string) string {
	s.t.Helper()
	return answer[client.Organisation](s, "org", "add", name).ID.String()
}

// A device goes from hand to hand while networks hold their connections: each
// owner's network joins it from the next join on, and the Application Server of
// the former owner keeps what it had and gets nothing new.
func TestHandsOver(t *testing.T) {
	s := newScene(t)
	buyer, finder := s.organisation("Buyer"), s.organisation("Finder")
	sold := s.join(s.home, "")
	s.fetch(sold, "")

	t.Run("an offer that is cancelled changes nothing", func(t *testing.T) {
		s.t = t
		s.ctl("transfer", "offer", s.name, "--to", buyer)
		s.fetch(s.join(s.home, ""), "")
		s.ctl("transfer", "cancel", s.name)
		sold = s.join(s.home, "")
		s.fetch(sold, "")
	})
	t.Run("accepted", func(t *testing.T) {
		s.t = t
		s.ctl("transfer", "offer", s.name, "--to", buyer)
		// The new owner keeps the Application Server away at first.
		s.ctl("transfer", "accept", s.name, "--org", buyer, "--net-id", "000042", "--as-id", "as.of-buyer.example")
		s.join(s.home, sim.ResultUnknownDevEUI)
		s.fetch(sold, sim.ResultUnknownDevEUI)
		s.fetch(s.join(s.other, ""), sim.ResultUnknownDevEUI)
		// Bound to the same Application Server, it still gets nothing of before.
		s.ctl("bind", s.name, "--org", buyer, "--net-id", "000042", "--as-id", "as.example.com")
		s.fetch(s.join(s.other, ""), "")
		s.fetch(sold, sim.ResultUnknownDevEUI)
	})
	t.Run("released and claimed", func(t *testing.T) {
		s.t = t
		before := s.join(s.other, "")
		released := answer[client.HandedOver](s, "release", s.name, "--org", buyer, "--yes")
		s.join(s.other, sim.ResultUnknownDevEUI)
		s.fetch(before, sim.ResultUnknownDevEUI)
		s.ctl("claim", s.name, "--org", buyer, "--owner-token-file", s.secretFile(released.OwnerToken), "--net-id", "000042", "--as-id", "as.example.com")
		s.fetch(s.join(s.other, ""), "")
		s.fetch(before, sim.ResultUnknownDevEUI)
	})
	t.Run("disputed by who has the element at hand", func(t *testing.T) {
		s.t = t
		label := s.device.JoinEUI().String() + "/" + s.name
		c := answer[client.Challenge](s, "dispute", "challenge", label, "--org", finder)
		digest, err := hex.DecodeString(c.Digest)
		ok(t, err)
		signature, err := s.device.Sign([32]byte(digest))
		ok(t, err)
		disputed := answer[client.DisputeResult](s, "dispute", "open", label, "--org", finder, "--statement", "found it",
			"--challenge", base64.StdEncoding.EncodeToString(c.Challenge), "--signature-file", s.secretFile(hex.EncodeToString(signature[:])))
		if disputed.Unlocked || disputed.Dispute.Evidence != "device-key" {
			t.Fatalf("%+v", disputed)
		}
		before := s.join(s.other, "") // to have it is not to own it
		s.fetch(before, "")
		s.ctl("dispute", "decide", disputed.Dispute.ID.String(), "--grant", "--yes", "--note", "the invoice is the finder's")
		s.join(s.other, sim.ResultUnknownDevEUI)
		s.fetch(before, sim.ResultUnknownDevEUI)
		s.ctl("bind", s.name, "--org", finder, "--net-id", "000013", "--as-id", "as.example.com")
		s.fetch(s.join(s.home, ""), "")
		if d := answer[client.Device](s, "device", "show", s.name); d.Owner.String() != finder {
			t.Errorf("held by %s, want %s", d.Owner, finder)
		}
	})
	// The server's own check finds nothing wrong with what came of it.
	ok(t, s.server.Stop())
	_, err := s.server.Run(t.Context(), "", "joinery", "fsck", "--config", s.server.Path("joinery.yaml"))
	ok(t, err)
	ok(t, s.server.Start(t.Context()))
	if strings.Contains(s.server.Log(), "panic") {
		t.Error("the server's log tells of a panic")
	}
}
