package seal

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// ErrKeyList is wrapped by errors about a key list as a whole: it cannot be
// read at all, or its header line is wrong.
var ErrKeyList = errors.New("not a usable key list")

// The columns that a key list may have.
const (
	colJoinEUI = iota
	colDevEUI
	colMACVersion
	colNwkKey
	colAppKey
	colUsedDevNonces
	colJoinNonceFloor
	colCount
)

// columnNames are our own, as error messages name them.
var columnNames = [colCount]string{
	"JoinEUI", "DevEUI", "MACVersion", "NwkKey", "AppKey", "UsedDevNonces", "JoinNonceFloor",
}

// ttsNames are those of The Things Stack's CSV. app_eui is its older name of
// join_eui.
var ttsNames = map[string]int{
	"join_eui": colJoinEUI, "app_eui": colJoinEUI, "dev_eui": colDevEUI, "lorawan_version": colMACVersion,
	"nwk_key": colNwkKey, "app_key": colAppKey,
	"used_dev_nonces": colUsedDevNonces, "join_nonce_floor": colJoinNonceFloor,
}

// columns tells where the columns of a list are.
type columns struct {
	sep byte
	// tts is set for The Things Stack's columns.
	tts bool
	// at is the position of each column; -1 for one that is absent.
	at [colCount]int
	// count is the number of columns in the header line.
	count int
}

// parseColumns reads the header line. A list whose DevEUI column is called
// dev_eui is The Things Stack's: it has many columns that are none of ours, and
// they are passed over. In a list of our own an unknown column is an error,
// since a misspelled UsedDevNonces would silently let old frames in again.
func parseColumns(line []byte) (c columns, err error) {
	line = bytes.TrimPrefix(line, []byte("\xEF\xBB\xBF"))
	if err := checkText(line); err != nil {
		return c, err
	}
	c.sep = ','
	if bytes.Count(line, []byte{';'}) > bytes.Count(line, []byte{','}) {
		c.sep = ';'
	}
	fields, err := splitFields(bytes.Clone(line), c.sep, nil)
	if err != nil {
		return c, fmt.Errorf("%w: header line: %w", ErrKeyList, err)
	}
	c.count = len(fields)
	for i := range c.at {
		c.at[i] = -1
	}
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = strings.ToLower(string(f))
		c.tts = c.tts || names[i] == "dev_eui"
	}
	for i, name := range names {
		if err := c.place(i, name); err != nil {
			return c, err
		}
	}
	return c, nil
}

// place notes that column i (from 0) has this name.
func (c *columns) place(i int, name string) error {
	col, known := ttsNames[name]
	if !c.tts {
		col, known = 0, false
		for own, ownName := range columnNames {
			if strings.EqualFold(name, ownName) {
				col, known = own, true
			}
		}
	}
	switch {
	case !known && c.tts:
		return nil
	case !known:
		// The name is not repeated: a list without header line begins with a key.
		return fmt.Errorf("%w: column %d of the header line is none of %s (nor is this a list of The Things Stack, which has a column dev_eui)",
			ErrKeyList, i+1, strings.Join(columnNames[:], ", "))
	case c.at[col] >= 0:
		return fmt.Errorf("%w: two columns hold %s", ErrKeyList, columnNames[col])
	}
	c.at[col] = i
	return nil
}

// require fails unless the columns are there that no option can stand for.
func (c *columns) require(opt KeyListOptions) error {
	var missing []string
	for col, have := range map[int]bool{
		colJoinEUI: opt.JoinEUI != nil, colDevEUI: false, colMACVersion: opt.MACVersion.Valid(),
	} {
		if c.at[col] < 0 && !have {
			missing = append(missing, columnNames[col])
		}
	}
	if c.at[colNwkKey] < 0 && c.at[colAppKey] < 0 {
		missing = append(missing, "NwkKey or AppKey")
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: the header line has no column for %s", ErrKeyList, strings.Join(missing, ", "))
	}
	return nil
}

// checkText says what a file is that is no CSV, where it shows.
func checkText(line []byte) error {
	switch {
	case bytes.HasPrefix(line, []byte("PK\x03\x04")):
		return fmt.Errorf("%w: this is a spreadsheet or an archive; save it as CSV", ErrKeyList)
	case bytes.HasPrefix(line, []byte{0xFF, 0xFE}), bytes.HasPrefix(line, []byte{0xFE, 0xFF}):
		return fmt.Errorf("%w: the file is UTF-16; save it as UTF-8", ErrKeyList)
	case bytes.IndexByte(line, 0) >= 0:
		return fmt.Errorf("%w: the file is not text", ErrKeyList)
	}
	return nil
}
