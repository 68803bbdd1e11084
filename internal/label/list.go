package label

import (
	"encoding/csv"
	"io"

	"joinery/tr005"
)

// List writes labels as CSV for the programs of label printers: a header line,
// then one label a line. The column Text is what the code has to hold.
type List struct{ csv *csv.Writer }

// NewList begins a list, with its columns divided by comma.
func NewList(w io.Writer, comma rune) (*List, error) {
	l := &List{csv.NewWriter(w)}
	l.csv.Comma = comma
	return l, l.csv.Write([]string{"Text", "JoinEUI", "DevEUI", "ProfileID", "OwnerToken", "Serial", "Proprietary"})
}

// Add writes a label.
func (l *List) Add(label tr005.Label) error {
	text, err := label.Encode()
	if err != nil {
		return err
	}
	return l.csv.Write([]string{
		text, label.JoinEUI.String(), label.DevEUI.String(), label.ProfileID.String(), label.OwnerToken, label.Serial, label.Proprietary,
	})
}

// Flush writes what is held back.
func (l *List) Flush() error {
	l.csv.Flush()
	return l.csv.Error()
}
