package seal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"

	"joinery/lorawan"
)

// KeyListOptions stand for columns that a list does not have, and settle what it
// leaves open.
type KeyListOptions struct {
	// JoinEUI and MACVersion hold for rows that do not say; nil and 0 mean that
	// every row has to.
	JoinEUI    *lorawan.EUI64
	MACVersion lorawan.MACVersion
	// Root10 says which key a 1.0.x device joins with whose row has two
	// different ones: "AppKey" or "NwkKey". "" means AppKey in a list of our own
	// columns; in one of The Things Stack's such a row is refused, since there it
	// depends on how the device was made.
	Root10 string
}

// KeyListReader reads a key list on its owner's machine and seals its keys. Its
// memory does not grow with the list.
type KeyListReader struct {
	lines   *lineReader
	objects *jsonList // nil: CSV
	columns columns
	opt     KeyListOptions
	sealer  *Sealer
	fields  [][]byte
}

// KeyList begins to read a CSV: our own columns or The Things Stack's, separated
// by commas or semicolons, with a header line, each row on one line; or The Things
// Stack's JSON, of which Line is the number of the device. The error wraps
// ErrKeyList where no row could be read at all.
func KeyList(in io.Reader, to PublicKey, opt KeyListOptions) (*KeyListReader, error) {
	if opt.Root10 != "" && opt.Root10 != RootAppKey && opt.Root10 != RootNwkKey {
		return nil, fmt.Errorf("%w: Root10 is neither %s nor %s", ErrKeyList, RootNwkKey, RootAppKey)
	}
	r := &KeyListReader{lines: newLineReader(in), opt: opt}
	if isJSON(r.lines.r) {
		if head, _ := r.lines.r.Peek(64); bytes.Contains(head, []byte(KeyListFormat)) {
			return nil, fmt.Errorf("%w: the list is sealed already; import it as it is", ErrKeyList)
		}
		r.objects, r.columns.tts = newJSONList(r.lines.r), true
		var err error
		r.sealer, err = NewSealer(to)
		return r, err
	}
	line, err := r.lines.next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: the file is empty", ErrKeyList)
	case errors.Is(err, errLineTooLong):
		return nil, fmt.Errorf("%w: %w", ErrKeyList, err)
	case err != nil:
		return nil, fmt.Errorf("reading the key list: %w", err)
	}
	if r.columns, err = parseColumns(line); err != nil {
		return nil, err
	}
	if err := r.columns.require(opt); err != nil {
		return nil, err
	}
	if r.sealer, err = NewSealer(to); err != nil {
		return nil, err
	}
	return r, nil
}

// Header gives what the recipient needs to open the rows.
func (r *KeyListReader) Header() Header { return r.sealer.Header() }

// Next gives the next device. A *RowError means that this row cannot be used and
// the next one may be; io.EOF is the end; after any other error there is no more.
func (r *KeyListReader) Next() (SealedRow, error) {
	if r.objects != nil {
		text, err := r.objects.next()
		if err != nil {
			return SealedRow{}, err
		}
		return r.object(text)
	}
	for {
		line, err := r.lines.next()
		switch {
		case errors.Is(err, errLineTooLong):
			return SealedRow{}, r.bad(err)
		case err != nil:
			return SealedRow{}, err
		case len(bytes.TrimSpace(line)) == 0:
			continue
		}
		return r.row(line)
	}
}

// All yields every row, or its *RowError; any other error is the last one.
func (r *KeyListReader) All() iter.Seq2[SealedRow, error] {
	return func(yield func(SealedRow, error) bool) {
		for {
			row, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			var bad *RowError
			if !yield(row, err) || err != nil && !errors.As(err, &bad) {
				return
			}
		}
	}
}

// Close wipes the file key. What was read stays readable for the recipient.
func (r *KeyListReader) Close() { r.sealer.Wipe() }

// bad makes the error of the present row.
func (r *KeyListReader) bad(reason error) error {
	return &RowError{r.lines.line, reason.Error()}
}

// field gives a column of the present row, nil if it is absent or empty.
func (r *KeyListReader) field(col int) []byte {
	if at := r.columns.at[col]; at >= 0 && len(r.fields[at]) > 0 {
		return r.fields[at]
	}
	return nil
}

func (r *KeyListReader) row(line []byte) (row SealedRow, err error) {
	if r.fields, err = splitFields(line, r.columns.sep, r.fields); err != nil {
		return SealedRow{}, r.bad(err)
	}
	if len(r.fields) != r.columns.count {
		return SealedRow{}, r.bad(fmt.Errorf("%d fields; the header line has %d", len(r.fields), r.columns.count))
	}
	row = SealedRow{Line: r.lines.line, MACVersion: r.opt.MACVersion}
	if r.opt.JoinEUI != nil {
		row.JoinEUI = *r.opt.JoinEUI
	}
	for _, read := range []func(*SealedRow) error{r.identifiers, r.nonces, r.keys} {
		if err := read(&row); err != nil {
			return SealedRow{}, r.bad(err)
		}
	}
	if err := row.Check(); err != nil {
		return SealedRow{}, r.bad(err)
	}
	return row, nil
}

func (r *KeyListReader) identifiers(row *SealedRow) (err error) {
	if f := r.field(colDevEUI); f != nil {
		if row.DevEUI, err = lorawan.ParseEUI64(string(withoutSeparators(f))); err != nil {
			return errors.New("DevEUI: want 16 hexadecimal digits")
		}
	}
	switch f := r.field(colJoinEUI); {
	case f != nil:
		if row.JoinEUI, err = lorawan.ParseEUI64(string(withoutSeparators(f))); err != nil {
			return errors.New("JoinEUI: want 16 hexadecimal digits")
		}
	case r.opt.JoinEUI == nil:
		return errors.New("JoinEUI is missing")
	}
	if f := r.field(colMACVersion); f != nil {
		if row.MACVersion, err = parseMACVersion(string(f)); err != nil {
			return errors.New("MACVersion: want 1.0.0, 1.0.1, 1.0.2, 1.0.3, 1.0.4 or 1.1.0")
		}
	}
	return nil
}

// parseMACVersion also reads The Things Stack's names: MAC_V1_0_3.
func parseMACVersion(s string) (lorawan.MACVersion, error) {
	if rest, ok := strings.CutPrefix(strings.ToUpper(s), "MAC_V"); ok {
		s = strings.ReplaceAll(rest, "_", ".")
	}
	return lorawan.ParseMACVersion(s)
}

func (r *KeyListReader) nonces(row *SealedRow) error {
	if f := r.field(colJoinNonceFloor); f != nil {
		n, err := strconv.ParseUint(string(f), 10, 24)
		if err != nil {
			return fmt.Errorf("JoinNonceFloor: want a number from 0 to %d", lorawan.MaxJoinNonce)
		}
		row.JoinNonceFloor = lorawan.JoinNonce(n)
	}
	isSep := func(c rune) bool { return c == ' ' || c == '|' || c == '\t' }
	for used := range bytes.FieldsFuncSeq(r.field(colUsedDevNonces), isSep) {
		n, err := strconv.ParseUint(string(used), 10, 16)
		if err != nil {
			return fmt.Errorf("UsedDevNonces: want numbers from 0 to %d, separated by spaces or |", lorawan.MaxDevNonce)
		}
		row.UsedDevNonces = append(row.UsedDevNonces, lorawan.DevNonce(n))
	}
	slices.Sort(row.UsedDevNonces)
	row.UsedDevNonces = slices.Compact(row.UsedDevNonces)
	return nil
}

// keys reads and seals the root keys of the row, of which all else is read: the
// MAC covers it. A 1.0.x device has one (TS001-1.0.4 §6.1.1.3), whatever column it
// stands in, a 1.1 device two.
func (r *KeyListReader) keys(row *SealedRow) error {
	nwk, err := r.key(colNwkKey)
	if err != nil {
		return err
	}
	defer clear(nwk)
	app, err := r.key(colAppKey)
	if err != nil {
		return err
	}
	defer clear(app)
	return r.sealKeys(row, nwk, app)
}

// sealKeys seals the root keys of a row, nil where it has none, and says which
// one serves 1.0.x.
func (r *KeyListReader) sealKeys(row *SealedRow, nwk, app []byte) (err error) {
	if row.MACVersion.HasTwoRootKeys() {
		if nwk == nil || app == nil {
			return errors.New("a 1.1 device needs both NwkKey and AppKey")
		}
		row.Root10 = RootNwkKey
	} else {
		if row.Root10, err = r.root10(nwk, app); err != nil {
			return err
		}
		if row.Root10 == RootNwkKey {
			app = nil
		} else {
			nwk = nil
		}
	}
	return r.sealer.SealRow(row, nwk, app)
}

func (r *KeyListReader) root10(nwk, app []byte) (string, error) {
	switch {
	case nwk == nil && app == nil:
		return "", errors.New("AppKey is missing")
	case nwk == nil:
		return RootAppKey, nil
	case app == nil:
		return RootNwkKey, nil
	case r.opt.Root10 != "":
		return r.opt.Root10, nil
	case r.columns.tts && !bytes.Equal(nwk, app): // on the owner's own machine
		return "", errors.New("a 1.0.x device has one root key, and this row has two different ones; say which one such devices join with")
	}
	return RootAppKey, nil
}

// key reads a root key; nil if the column is absent or empty.
func (r *KeyListReader) key(col int) ([]byte, error) {
	f := r.field(col)
	if f == nil {
		return nil, nil
	}
	key, err := decodeKey(f)
	if err != nil {
		return nil, fmt.Errorf("%s: want 32 hexadecimal digits", columnNames[col])
	}
	return checkKey(key, col)
}

// checkKey refuses what is no root key.
func checkKey(key []byte, col int) ([]byte, error) {
	if len(key) != rootLen {
		clear(key)
		return nil, fmt.Errorf("%s: want 32 hexadecimal digits", columnNames[col])
	}
	if bytes.Equal(key, make([]byte, rootLen)) {
		return nil, fmt.Errorf("%s is all zeros, which is no key; leave the field empty if there is none", columnNames[col])
	}
	return key, nil
}

// decodeKey reads hexadecimal digits of either case; the error says nothing of
// what it read.
func decodeKey(text []byte) ([]byte, error) {
	digits := withoutSeparators(text)
	defer clear(digits)
	key := make([]byte, hex.DecodedLen(len(digits)))
	if _, err := hex.Decode(key, digits); err != nil {
		clear(key)
		return nil, errors.New("not an even number of hexadecimal digits")
	}
	return key, nil
}

// ParseHexKey reads an AES key of 16, 24 or 32 bytes from hexadecimal digits of
// either case, as a KEK is given; blanks around it do not matter. The error says
// nothing of what it read.
func ParseHexKey(text []byte) ([]byte, error) {
	key, err := decodeKey(bytes.TrimSpace(text))
	if err == nil && isKeyLen(len(key)) {
		return key, nil
	}
	clear(key)
	return nil, errors.New("not a key: want 32, 48 or 64 hexadecimal digits")
}

// withoutSeparators drops what people put between bytes: 70-B3-D5, 70:B3:D5,
// 70 B3 D5.
func withoutSeparators(text []byte) []byte {
	return bytes.Map(func(c rune) rune {
		if c == '-' || c == ':' || c == ' ' {
			return -1
		}
		return c
	}, text)
}
