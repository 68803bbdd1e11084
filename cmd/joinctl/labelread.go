package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"joinery"
	"joinery/client"
	"joinery/lorawan"
	"joinery/tr005"

	"github.com/spf13/cobra"
)

// labelFacts is a label for programs.
type labelFacts struct {
	Form        string        `json:"form"`
	Text        string        `json:"text,omitzero"`
	JoinEUI     lorawan.EUI64 `json:"joinEUI,omitzero"`
	DevEUI      lorawan.EUI64 `json:"devEUI"`
	ProfileID   string        `json:"profileID,omitzero"`
	OwnerToken  string        `json:"ownerToken,omitzero"`
	Serial      string        `json:"serial,omitzero"`
	Proprietary string        `json:"proprietary,omitzero"`
	// Checksum is fits, partial, wrong or none; partial fits, and Unchecked names the
	// members that it does not cover.
	Checksum  string   `json:"checksum,omitzero"`
	Unchecked []string `json:"unchecked,omitempty"`
}

func labelJSON(l tr005.Label, text string) labelFacts {
	f := labelFacts{
		Form: l.Format.String(), Text: text, JoinEUI: l.JoinEUI, DevEUI: l.DevEUI,
		OwnerToken: l.OwnerToken, Serial: l.Serial, Proprietary: l.Proprietary,
	}
	if l.Format != tr005.BareDevEUI {
		f.ProfileID = l.ProfileID.String()
	}
	return f
}

func (a *app) labelReadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "read [FILE]",
		Short: "Say what the text of a scanned label is",
		Long: `Say what the text of a scanned label is, from a file or from standard input. It is not
an argument, because it holds the owner token and would show in the list of processes.
No server is asked. The exit code is 1 for what is no label, and for a wrong checksum.

A checksum that fits says that what stands before it was not misread, and no more:
anybody can compute one, so it proves neither who made the label nor that it was not
altered. Some software writes it before the owner token, which it then does not cover.`,
		Example: `  joinctl label read scanned.txt
  xclip -o | joinctl label read --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := append(args, "-")[0]
			if tr005Like(path) {
				return usagef("FILE names a file, or - for standard input: the text of a label holds its owner token and would show in the list of processes")
			}
			text, err := a.readSecretLine(path, "label")
			if err != nil {
				return err
			}
			l, err := tr005.Parse(text)
			wrong := errors.Is(err, tr005.ErrChecksum)
			if err != nil && !wrong {
				return err
			}
			if told := a.tellLabel(l, wrong); told != nil {
				return told
			}
			return err
		},
	}
}

func (a *app) tellLabel(l tr005.Label, wrong bool) error {
	facts := labelJSON(l, "")
	switch {
	case wrong:
		facts.Checksum = "wrong"
	case l.Unchecked != "":
		facts.Checksum, facts.Unchecked = "partial", uncheckedMembers(l)
	case l.Checksum != "":
		facts.Checksum = "fits"
	case l.Format == tr005.Final:
		facts.Checksum = "none"
	}
	return a.show(facts, func() error {
		joinEUI, vendor := "", ""
		if l.Format != tr005.BareDevEUI {
			joinEUI = l.JoinEUI.String()
		}
		if !l.ProfileID.IsZero() {
			vendor = fmt.Sprintf("%04X, product %04X", l.ProfileID.Vendor, l.ProfileID.Profile)
		}
		return a.facts("form", facts.Form, "JoinEUI", joinEUI, "DevEUI", l.DevEUI, "ProfileID", facts.ProfileID, "vendor", vendor,
			"owner token", l.OwnerToken, "serial number", l.Serial, "proprietary", l.Proprietary, "checksum", checksumWords(l, facts.Checksum))
	})
}

// labelMembers names the elements of a label, by their tags: as a member of labelFacts,
// and for people.
var labelMembers = map[rune][2]string{'O': {"ownerToken", "owner token"}, 'S': {"serial", "serial number"}, 'P': {"proprietary", "proprietary element"}}

// uncheckedMembers names what the checksum of a label does not cover; elements that
// nobody defined are not shown, and not named.
func uncheckedMembers(l tr005.Label) (members []string) {
	for _, tag := range l.Unchecked {
		if m, known := labelMembers[tag]; known {
			members = append(members, m[0])
		}
	}
	return members
}

// checksumWords says for people what is known by a label's checksum.
func checksumWords(l tr005.Label, verdict string) string {
	switch verdict {
	case "fits":
		return "fits the text"
	case "partial":
		names := []string{}
		for _, tag := range l.Unchecked {
			if m, known := labelMembers[tag]; known {
				names = append(names, m[1])
			}
		}
		if len(names) == 0 {
			names = append(names, "an element that nobody defined")
		}
		return "fits what stands before it; not covered by it: " + strings.Join(names, ", ")
	}
	return verdict
}

// scannedClaim is what became of one scanned label.
type scannedClaim struct {
	Line    int              `json:"line"`
	JoinEUI lorawan.EUI64    `json:"joinEUI,omitzero"`
	DevEUI  lorawan.EUI64    `json:"devEUI,omitzero"`
	Device  joinery.DeviceID `json:"device,omitzero"`
	Reason  string           `json:"reason,omitzero"` // why it is not claimed
}

// claimScanned claims the device of each label that a file holds, one a line, as
// they come: whoever holds the scanner sees at once what became of it.
func (a *app) claimScanned(ctx context.Context, api *client.Client, path string, binding *client.NewBinding) error {
	if tr005Like(path) {
		return usagef("--qr names a file, or - for standard input: the text of a label holds its owner token and would show in the list of processes")
	}
	in := a.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("scanned labels: %w", err)
		}
		defer func() { _ = f.Close() }()
		a.warnIfOpen(f, "owner token")
		in = f
	}
	results := []scannedClaim{}
	refused := 0
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" {
			continue
		}
		result, err := claimLabel(ctx, api, text, binding)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		result.Line = n
		results = append(results, result)
		if result.Reason != "" {
			refused++
		}
		if a.flags.json {
			continue
		}
		if err := a.tellClaim(result); err != nil {
			return err
		}
	}
	if a.flags.json {
		if err := writeJSON(a.out, results); err != nil {
			return err
		}
	}
	switch {
	case lines.Err() != nil:
		return fmt.Errorf("scanned labels: %w", lines.Err())
	case len(results) == 0:
		return errors.New("scanned labels: there is no text")
	case refused == len(results):
		return errors.New("no device was claimed")
	case refused > 0:
		return errPartial
	}
	return nil
}

// tr005Like tells the text of a label from the name of a file.
func tr005Like(s string) bool {
	upper := strings.ToUpper(strings.TrimSpace(s))
	return strings.HasPrefix(upper, "LW:") || strings.HasPrefix(upper, "URN:")
}

// claimLabel claims the device of one label. The error is one that the next
// label would meet, too.
func claimLabel(ctx context.Context, api *client.Client, text string, binding *client.NewBinding) (r scannedClaim, err error) {
	l, err := tr005.Parse(text)
	r.JoinEUI, r.DevEUI = l.JoinEUI, l.DevEUI
	switch {
	case err != nil:
		r.Reason = err.Error()
		return r, nil
	case l.OwnerToken == "":
		r.Reason = "this label has no owner token; give JOINEUI/DEVEUI and --owner-token-file with the token that came with the device"
		return r, nil
	}
	d, err := api.Claim(ctx, client.NewClaim{JoinEUI: l.JoinEUI, DevEUI: l.DevEUI, OwnerToken: l.OwnerToken, Binding: binding})
	p, isProblem := errors.AsType[*client.Problem](err)
	switch {
	case err == nil:
		r.Device = d.ID
	case isProblem && (p.Code == joinery.CodeForbidden || p.Code == joinery.CodeConflict || p.Code == joinery.CodeInvalid || p.Code == joinery.CodeRateLimited):
		r.Reason, err = p.Error(), nil
	}
	return r, err
}

func (a *app) tellClaim(r scannedClaim) error {
	what := "claimed as " + r.Device.String()
	if r.Reason != "" {
		what = "NOT claimed: " + clean(r.Reason)
	}
	if r.DevEUI.IsZero() {
		return a.printf("line %d: %s\n", r.Line, what)
	}
	return a.printf("line %d: %s/%s: %s\n", r.Line, r.JoinEUI, r.DevEUI, what)
}
