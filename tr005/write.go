package tr005

import "strings"

// maxToken is the longest owner token that clients take.
const maxToken = 32

// Encode writes the text of the label in its form: elements in the order of
// TR005 (owner token, serial number, proprietary), and in the final form a
// checksum at the end. The text has only characters that a QR code packs two in
// 11 bits, but for Draft3, whose separator is none of them.
//
// An error wraps ErrSyntax: a value does not fit the form.
func (l Label) Encode() (string, error) {
	var text string
	var err error
	switch l.Format {
	case Final:
		if text, err = l.join(prefixFinal, ":", ":", 'O', finalChars); err == nil {
			text += ":C" + checksum(text)
		}
	case Draft2:
		text, err = l.join(prefixDraft2, ":", "%", 'V', draft2Chars)
	case Draft3:
		text, err = l.join(prefixDraft3, "_", "_", 'V', upperCase)
	case BareDevEUI:
		text = l.DevEUI.String()
		if l != (Label{Format: BareDevEUI, DevEUI: l.DevEUI}) {
			err = syntax("this form holds a DevEUI and nothing else")
		}
	default:
		err = syntax("there is no such form")
	}
	if err == nil && len(text) > MaxLen {
		err = syntax("more than %d characters", MaxLen)
	}
	if err != nil {
		return "", err
	}
	return text, nil
}

// join writes the identifiers with sep between them, then each element behind
// mark, whose value has only chars.
func (l Label) join(prefix, sep, mark string, token rune, chars string) (string, error) {
	if !only(l.OwnerToken, upperCase) || len(l.OwnerToken) > maxToken {
		return "", syntax("the owner token has at most %d characters, upper-case letters and digits", maxToken)
	}
	var b strings.Builder
	b.WriteString(prefix + l.JoinEUI.String() + sep + l.DevEUI.String() + sep + l.ProfileID.String())
	first := true
	for _, e := range []struct {
		tag         rune
		name, value string
	}{{token, "owner token", l.OwnerToken}, {'S', "serial number", l.Serial}, {'P', "proprietary element", l.Proprietary}} {
		if e.value == "" {
			continue
		}
		if !only(e.value, chars) {
			return "", syntax("the %s may hold no other characters than %q; letters in upper case", e.name, chars)
		}
		if first && mark != sep {
			b.WriteString(sep) // draft 2 has one before its elements
		}
		first = false
		b.WriteString(mark + string(e.tag) + e.value)
	}
	return b.String(), nil
}
