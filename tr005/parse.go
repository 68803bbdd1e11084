package tr005

import (
	"errors"
	"fmt"
	"strings"

	"joinery/lorawan"
)

// Beginnings of the forms, and what stands between the parts of each.
const (
	prefixFinal  = "LW:D0:"
	prefixDraft2 = "URN:LW:DP:"
	prefixDraft3 = "URN:DEV:LW:"
)

// Parse reads the text of a label in any of the forms. Elements may stand in
// any order; those that nobody defined, and empty ones, are passed over. EUIs
// and checksum may be in either case, the letters around them in upper case
// only.
//
// An error wraps ErrSyntax or ErrChecksum. With ErrChecksum the label comes all
// the same, as far as it could be read, for who wants to look at it; it must not
// be believed.
func Parse(text string) (Label, error) {
	if len(text) > MaxLen {
		return Label{}, syntax("more than %d characters", MaxLen)
	}
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return Label{}, syntax("a label holds printable ASCII characters only; character %d is none", i+1)
		}
	}
	if rest, ok := strings.CutPrefix(text, prefixFinal); ok {
		return parseFinal(text, rest)
	}
	if rest, ok := strings.CutPrefix(text, prefixDraft2); ok {
		return parseDraft2(rest)
	}
	if rest, ok := strings.CutPrefix(text, prefixDraft3); ok {
		return parseDraft3(rest)
	}
	if len(text) == 16 {
		devEUI, err := lorawan.ParseEUI64(text)
		if err != nil {
			return Label{}, syntax("16 characters would be a DevEUI, of hexadecimal digits only")
		}
		return Label{Format: BareDevEUI, DevEUI: devEUI}, nil
	}
	return Label{}, syntax("not the label of a LoRaWAN device: it would begin with %s, %s or %s, or be a DevEUI of 16 hexadecimal digits",
		prefixFinal, prefixDraft2, prefixDraft3)
}

func syntax(format string, args ...any) error {
	return fmt.Errorf("label: %w: "+format, append([]any{ErrSyntax}, args...)...)
}

// parseFinal reads the final form; rest is text behind its beginning.
func parseFinal(text, rest string) (Label, error) {
	parts := strings.Split(rest, ":")
	l, err := parseIDs(Final, parts)
	if err != nil {
		return Label{}, err
	}
	at := len(text) - len(rest) + len(strings.Join(parts[:3], ":")) // of the colon before the next element
	var wrong error
	e := elements{label: &l, token: 'O'}
	for _, part := range parts[3:] {
		if err := e.take(part); err != nil {
			return Label{}, err
		}
		switch {
		case strings.HasPrefix(part, "C"):
			if !strings.EqualFold(l.Checksum, checksum(text[:at])) {
				wrong = fmt.Errorf("label: %w: read it again, or type it again", ErrChecksum)
			}
		case l.Checksum != "" && len(part) > 1:
			l.Unchecked += part[:1]
		}
		at += 1 + len(part)
	}
	if l.Checksum == "" {
		wrong = nil // an empty element is as good as none
	}
	return l, wrong
}

func parseDraft2(rest string) (Label, error) {
	parts := strings.SplitN(rest, ":", 4)
	l, err := parseIDs(Draft2, parts)
	if err != nil || len(parts) < 4 || parts[3] == "" {
		return l, err
	}
	// Some write the sign of an element as in a URN.
	block := strings.ReplaceAll(parts[3], "%25", "%")
	if block[0] != '%' {
		return Label{}, syntax("elements of this form begin with %%")
	}
	return parseElements(l, strings.Split(block[1:], "%"), draft2Chars)
}

func parseDraft3(rest string) (Label, error) {
	parts := strings.Split(rest, "_")
	l, err := parseIDs(Draft3, parts)
	if err != nil {
		return l, err
	}
	return parseElements(l, parts[3:], upperCase)
}

// parseIDs reads JoinEUI, DevEUI and ProfileID, the first three parts.
func parseIDs(f Format, parts []string) (l Label, err error) {
	if len(parts) < 3 {
		return l, syntax("JoinEUI, DevEUI and ProfileID must all be there")
	}
	l.Format = f
	var errs [3]error
	l.JoinEUI, errs[0] = lorawan.ParseEUI64(parts[0])
	l.DevEUI, errs[1] = lorawan.ParseEUI64(parts[1])
	l.ProfileID, errs[2] = ParseProfileID(parts[2])
	if errors.Join(errs[:]...) == nil {
		return l, nil
	}
	for i, name := range []string{"JoinEUI", "DevEUI", "ProfileID"} {
		if errs[i] != nil {
			return Label{}, syntax("%s: want %d hexadecimal digits", name, [...]int{16, 16, 8}[i])
		}
	}
	return l, nil
}

// parseElements reads the elements of a draft.
func parseElements(l Label, parts []string, chars string) (Label, error) {
	e := elements{label: &l, token: 'V'}
	for _, part := range parts {
		if !only(part, chars) {
			return Label{}, syntax("an element of this form holds no other characters than %s", chars)
		}
		if err := e.take(part); err != nil {
			return Label{}, err
		}
	}
	return l, nil
}

// elements fills a label. The tag of the owner token is what the forms differ
// in.
type elements struct {
	label *Label
	token byte
	seen  [256]bool
}

// take reads one element. One that comes twice leaves it open which holds.
func (e *elements) take(part string) error {
	if part == "" {
		return nil
	}
	var field *string
	switch tag := part[0]; tag {
	case e.token:
		field = &e.label.OwnerToken
	case 'S':
		field = &e.label.Serial
	case 'P':
		field = &e.label.Proprietary
	case 'C':
		if e.label.Format != Final {
			return nil
		}
		field = &e.label.Checksum
	default:
		return nil
	}
	if e.seen[part[0]] {
		return syntax("the element %c is there twice", part[0])
	}
	e.seen[part[0]] = true
	*field = part[1:]
	return nil
}
