package command

import (
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"joinery/internal/sim"
)

// report is the story of one invocation.
type report struct {
	OK    bool   `json:"ok"`
	Steps []step `json:"steps"`
	// Error is why there is no further step, if one was wanted.
	Error string `json:"error,omitempty"`
}

// step is one exchange: what was done, in facts, and what was checked.
type step struct {
	Title  string     `json:"title"`
	OK     bool       `json:"ok"`
	Facts  []fact     `json:"facts"`
	Checks sim.Checks `json:"checks"`
}

// fact is one line of the story.
type fact struct {
	Who  string `json:"who"`
	What string `json:"what"`
}

// tell adds a fact.
func (s *step) tell(who, format string, args ...any) {
	s.Facts = append(s.Facts, fact{who, fmt.Sprintf(format, args...)})
}

// add ends a step.
func (r *report) add(s step) {
	s.OK = s.Checks.OK()
	r.OK = s.OK && (r.OK || len(r.Steps) == 0)
	r.Steps = append(r.Steps, s)
}

// fail ends a report with an error, which the caller prints as well.
func (r *report) fail(err error) { r.OK, r.Error = false, err.Error() }

func (r *report) printJSON(out io.Writer) error {
	b, err := json.Marshal(r, jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	_, err = out.Write(append(b, '\n'))
	return err
}

// whoWidth is the column of who did something.
const whoWidth = 12

// print writes the story as text.
func (r *report) printText(out io.Writer, verbose bool) error {
	var b strings.Builder
	for i, s := range r.Steps {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintln(&b, s.Title)
		for _, f := range s.Facts {
			paragraph(&b, f.Who, f.What)
		}
		s.printChecks(&b, verbose)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// printChecks writes what each party verified: a paragraph for each, or a line
// for each check; then what did not hold.
func (s *step) printChecks(b *strings.Builder, verbose bool) {
	for _, by := range []sim.Party{sim.ByNS, sim.ByDevice, sim.ByAS} {
		names := s.heldBy(by, verbose)
		switch {
		case len(names) == 0:
		case verbose:
			for _, name := range names {
				paragraph(b, string(by)+" checked", name)
			}
		default:
			paragraph(b, string(by)+" checked", strings.Join(names, "; "))
		}
	}
	for _, c := range s.Checks.Failed() {
		paragraph(b, "FAILED", c.String())
	}
	if s.OK {
		paragraph(b, "ok", fmt.Sprintf("%d checks held", len(s.Checks)))
	}
}

// heldBy names the checks of a party that hold: each on its own, or those of
// form in one and repeated ones with all their details.
func (s *step) heldBy(by sim.Party, each bool) (names []string) {
	form := 0
	for _, c := range s.Checks {
		switch {
		case c.Party != by || !c.OK:
		case !each && c.IsForm():
			form++
		case each && c.Detail != "":
			names = append(names, c.Name+" ("+c.Detail+")")
		case each:
			names = append(names, c.Name)
		default:
			names = appendCheck(names, c)
		}
	}
	if form > 0 {
		names = append([]string{fmt.Sprintf("form of the answer (HTTP, strict JSON, version, ids, TransactionID, code: %d checks)", form)}, names...)
	}
	return names
}

// appendCheck adds a check's name and detail; the same name again only adds its
// detail.
func appendCheck(names []string, c sim.Check) []string {
	if n := len(names); n > 0 && c.Detail != "" && strings.HasPrefix(names[n-1], c.Name+" (") {
		names[n-1] = strings.TrimSuffix(names[n-1], ")") + ", " + c.Detail + ")"
		return names
	}
	if c.Detail != "" {
		return append(names, c.Name+" ("+c.Detail+")")
	}
	return append(names, c.Name)
}

// lineWidth is where text is broken.
const lineWidth = 110

// paragraph writes text behind who, broken at spaces.
func paragraph(b *strings.Builder, who, text string) {
	head := fmt.Sprintf("  %-*s ", whoWidth+4, who)
	line := head
	for word := range strings.FieldsSeq(text) {
		if len(line)+len(word) > lineWidth && strings.TrimSpace(line) != "" && len(line) > len(head) {
			fmt.Fprintln(b, strings.TrimRight(line, " "))
			line = strings.Repeat(" ", len(head))
		}
		line += word + " "
	}
	fmt.Fprintln(b, strings.TrimRight(line, " "))
}
