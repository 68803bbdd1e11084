package manifest

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"joinery/lorawan"
)

// Errors of device lists.
var (
	// ErrClearKey: the list holds a key that anybody can read. Such a list must not
	// travel; package seal encrypts it where it is.
	ErrClearKey = errors.New("the list holds a key in the clear")
	// ErrDeviceList: the list is none of The Things Stack's, or a device of it lacks
	// an identifier.
	ErrDeviceList = errors.New("not a device list of The Things Stack")
)

// Listed is one device of a list.
type Listed struct {
	// Line is its line in a CSV, its number in JSON, from 1.
	Line       uint64
	ID         string // what its owner calls it
	JoinEUI    lorawan.EUI64
	DevEUI     lorawan.EUI64
	MACVersion lorawan.MACVersion // 0 where the list does not say
}

// DeviceListReader reads a device list of The Things Stack, CSV or JSON, that
// names devices and holds no keys. Its memory does not grow with the list.
type DeviceListReader struct {
	next func() (Listed, error)
	line uint64
}

// ReadDeviceList begins to read a list: CSV with a header line, separated by
// commas or semicolons, or JSON objects, one after the other or in an array.
func ReadDeviceList(in io.Reader) (*DeviceListReader, error) {
	buffered := bufio.NewReader(in)
	if bom, _ := buffered.Peek(3); string(bom) == "\xEF\xBB\xBF" {
		_, _ = buffered.Discard(3) // they were just seen
	}
	start, err := firstByte(buffered)
	if err != nil {
		return nil, err
	}
	r := &DeviceListReader{}
	if start == '{' || start == '[' {
		r.next = jsonDevices(buffered)
		return r, nil
	}
	r.next, err = csvDevices(buffered)
	return r, err
}

// Next gives the next device; io.EOF after the last. ErrClearKey and
// ErrDeviceList end the reading; the error names the line.
func (r *DeviceListReader) Next() (Listed, error) {
	r.line++
	d, err := r.next()
	switch {
	case errors.Is(err, io.EOF):
		return d, io.EOF
	case err != nil && d.Line > 0:
		return d, fmt.Errorf("line %d: %w", d.Line, err)
	case err != nil:
		return d, fmt.Errorf("device %d: %w", r.line, err)
	}
	if d.Line == 0 {
		d.Line = r.line
	}
	return d, nil
}

func firstByte(r *bufio.Reader) (byte, error) {
	for {
		b, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("%w: the file is empty", ErrDeviceList)
		}
		if err != nil {
			return 0, err
		}
		if !strings.ContainsRune(" \t\r\n", rune(b)) {
			return b, r.UnreadByte()
		}
	}
}

// keyColumns are the columns in which a CSV of The Things Stack has keys.
var keyColumns = []string{"app_key", "nwk_key", "app_s_key", "f_nwk_s_int_key", "s_nwk_s_int_key", "nwk_s_enc_key"}

func csvDevices(in *bufio.Reader) (func() (Listed, error), error) {
	head, err := in.Peek(maxGap)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	head, _, _ = bytes.Cut(head, []byte{'\n'})
	lines := csv.NewReader(in)
	if bytes.Count(head, []byte{';'}) > bytes.Count(head, []byte{','}) {
		lines.Comma = ';'
	}
	lines.ReuseRecord = true
	names, err := lines.Read()
	if err != nil {
		return nil, fmt.Errorf("%w: the header line cannot be read", ErrDeviceList)
	}
	at := map[string]int{}
	for i, name := range names {
		at[strings.ToLower(strings.TrimSpace(name))] = i
	}
	if _, ok := at["join_eui"]; !ok {
		if old, ok := at["app_eui"]; ok {
			at["join_eui"] = old
		}
	}
	for _, name := range []string{"dev_eui", "join_eui"} {
		if _, ok := at[name]; !ok {
			return nil, fmt.Errorf("%w: the header line has no column %s", ErrDeviceList, name)
		}
	}
	return func() (Listed, error) {
		record, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return Listed{}, io.EOF
		}
		if broken, ok := errors.AsType[*csv.ParseError](err); ok {
			return Listed{Line: uint64(broken.Line)}, fmt.Errorf("%w: the line cannot be read", ErrDeviceList)
		}
		if err != nil {
			return Listed{}, err
		}
		line, _ := lines.FieldPos(0)
		field := func(name string) string {
			if i, ok := at[name]; ok {
				return strings.TrimSpace(record[i])
			}
			return ""
		}
		if slices.ContainsFunc(keyColumns, func(name string) bool { return field(name) != "" }) {
			return Listed{Line: uint64(line)}, ErrClearKey
		}
		d, err := listed(field("id"), field("join_eui"), field("dev_eui"), field("lorawan_version"))
		d.Line = uint64(line)
		return d, err
	}, nil
}

func jsonDevices(in io.Reader) func() (Listed, error) {
	dec := jsontext.NewDecoder(in)
	begun := false
	return func() (Listed, error) {
		if !begun && dec.PeekKind() == '[' {
			_, _ = dec.ReadToken() // it was just seen
		}
		begun = true
		if dec.PeekKind() == ']' {
			_, _ = dec.ReadToken()
		}
		value, err := dec.ReadValue()
		switch {
		case errors.Is(err, io.EOF):
			return Listed{}, io.EOF
		case err != nil || len(value) > MaxEntry:
			return Listed{}, fmt.Errorf("%w: broken JSON, or a device of more than %d bytes", ErrDeviceList, MaxEntry)
		}
		if holdsKey(value) {
			return Listed{}, ErrClearKey
		}
		var d struct {
			IDs struct {
				DeviceID string `json:"device_id"`
				JoinEUI  string `json:"join_eui"`
				DevEUI   string `json:"dev_eui"`
			} `json:"ids"`
			Version string `json:"lorawan_version"`
		}
		if err := json.Unmarshal(value, &d); err != nil {
			return Listed{}, fmt.Errorf("%w: want objects with ids and lorawan_version", ErrDeviceList)
		}
		return listed(d.IDs.DeviceID, d.IDs.JoinEUI, d.IDs.DevEUI, d.Version)
	}
}

// holdsKey tells whether an object has a member key, or one of keyColumns, that is
// a text: at any depth, since sessions have keys, too. Encrypted ones are called
// encrypted_key.
func holdsKey(value jsontext.Value) bool {
	dec := jsontext.NewDecoder(bytes.NewReader(value))
	name := ""
	for {
		// A name comes where an even number of tokens of its object was read.
		kind, length := dec.StackIndex(dec.StackDepth())
		isName := kind == '{' && length%2 == 0
		token, err := dec.ReadToken()
		if err != nil {
			return false
		}
		switch {
		case token.Kind() != '"':
			name = ""
		case isName:
			name = token.String()
		case (name == "key" || slices.Contains(keyColumns, name)) && token.String() != "":
			return true
		default:
			name = ""
		}
	}
}

func listed(id, joinEUI, devEUI, version string) (d Listed, err error) {
	d.ID = id
	if d.DevEUI, err = lorawan.ParseEUI64(devEUI); err != nil {
		return d, fmt.Errorf("%w: dev_eui: want 16 hexadecimal digits", ErrDeviceList)
	}
	if d.JoinEUI, err = lorawan.ParseEUI64(joinEUI); err != nil {
		return d, fmt.Errorf("%w: join_eui: want 16 hexadecimal digits", ErrDeviceList)
	}
	if version == "" {
		return d, nil
	}
	if rest, ok := strings.CutPrefix(strings.ToUpper(version), "MAC_V"); ok {
		version = strings.ReplaceAll(rest, "_", ".")
	}
	if d.MACVersion, err = lorawan.ParseMACVersion(version); err != nil {
		return d, fmt.Errorf("%w: lorawan_version: want MAC_V1_0_3 or the like", ErrDeviceList)
	}
	return d, nil
}
