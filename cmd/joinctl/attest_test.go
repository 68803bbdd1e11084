package main

import (
	"strings"
	"testing"

	"joinery/client"
)

// What a result rests on is said in words: who is not pinned, and what failed, above all.
func TestGroundText(t *testing.T) {
	const sum = "3f02f655463b34e58d7ed1e69dac309777fb08c210b9d1b4f8f43032156ffe87"
	for name, x := range map[string]struct {
		basis string
		g     client.AttestationGround
		want  []string
	}{
		"chain":        {"chain", client.AttestationGround{Key: "manifest", SignerName: "Maker", SignerSHA256: sum, Pinned: true, Chain: "checked"}, []string{`chain: `, `pinned signer "Maker"`, sum[:16], "lead to its pinned root"}},
		"no root":      {"vouched", client.AttestationGround{Key: "manifest", SignerName: "Maker", SignerSHA256: sum, Pinned: true, Chain: "no-root"}, []string{"no root is pinned"}},
		"other root":   {"any", client.AttestationGround{Key: "manifest", SignerName: "Maker", SignerSHA256: sum, Pinned: true, Chain: "failed"}, []string{"any: ", "NO PINNED ROOT"}},
		"unpinned":     {"any", client.AttestationGround{Key: "manifest", SignerName: "Maker", SignerSHA256: sum, Chain: "checked"}, []string{"NOT PINNED any more", "led to"}},
		"never pinned": {"any", client.AttestationGround{Key: "manifest", SignerSHA256: sum, Chain: "unknown"}, []string{"a signer that is NOT PINNED"}},
		"registered":   {"vouched", client.AttestationGround{Key: "registered", Chain: "none"}, []string{"the maker's word"}},
		"not noted":    {"any", client.AttestationGround{Key: "unknown", Chain: "unknown"}, []string{"not noted"}},
	} {
		got := groundText(client.AttestationResult{Basis: x.basis, RestsOn: x.g})
		for _, want := range x.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q is not in %q", name, want, got)
			}
		}
	}
}
