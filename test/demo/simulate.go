package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// report is what joinsim join --json prints.
type report struct {
	OK    bool
	Steps []step
}

type step struct {
	Title  string
	OK     bool
	Facts  []struct{ Who, What string }
	Checks []struct {
		Party, Name string
		OK          bool
	}
}

// simulate lets the simulator play one device and tells each step in a line.
func (s *story) simulate(ctx context.Context, a actor, args ...string) error {
	out, failed := s.server.Sim(ctx, "join", append([]string{"--dev-eui", a.devEUI, "--json"}, args...)...)
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return fmt.Errorf("joinsim: %w", firstOf(failed, err))
	}
	if failed != nil {
		return failed
	}
	for _, step := range r.Steps {
		s.tell(step)
	}
	return nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// tell prints a step: what happened, what came of it, and by whom it was
// checked.
func (s *story) tell(step step) {
	counts := map[string]int{}
	for _, c := range step.Checks {
		counts[c.Party]++
		s.checks++
	}
	var by []string
	for _, party := range []string{"NS", "device", "AS"} {
		if counts[party] > 0 {
			by = append(by, fmt.Sprintf("%s %d", party, counts[party]))
		}
	}
	s.line("%s", step.Title)
	for _, f := range step.Facts {
		if f.Who == "Join Server" || f.Who == "device" && strings.HasPrefix(f.What, "takes") {
			what, _, _ := strings.Cut(f.What, "; SessionKeyID")
			fmt.Fprintf(s.out, "      %s: %s\n", f.Who, what)
		}
	}
	fmt.Fprintf(s.out, "      checks: %s, among them: %s\n", strings.Join(by, ", "), highlights(step))
}

// highlights names the checks that matter most in a step.
func highlights(step step) string {
	var names []string
	seen := map[string]bool{}
	for _, c := range step.Checks {
		if memorable[c.Name] && !seen[c.Name] {
			seen[c.Name] = true
			names = append(names, c.Name)
		}
	}
	return strings.Join(names, "; ")
}

var memorable = map[string]bool{
	"ResultCode is the expected one":                true,
	"a refusal carries no accept and no key":        true,
	"network key opens under a KEK of this network": true,
	"session key equals the element's":              true,
	"device opens the accept and its MIC is right":  true,
	"JoinNonce is above the last":                   true,
	"AppSKey equals the element's":                  true,
	"a repeat gets the same answer":                 true,
}
