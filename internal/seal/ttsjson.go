package seal

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"joinery/lorawan"
)

// maxObject bounds one device of a JSON list, in bytes.
const maxObject = 1 << 20

// ttsObject is a device as The Things Stack writes it. Other members pass unread.
type ttsObject struct {
	IDs struct {
		JoinEUI string `json:"join_eui"`
		DevEUI  string `json:"dev_eui"`
	} `json:"ids"`
	Version  string `json:"lorawan_version"`
	RootKeys struct {
		AppKey ttsKey `json:"app_key"`
		NwkKey ttsKey `json:"nwk_key"`
	} `json:"root_keys"`
	UsedDevNonces []uint16 `json:"used_dev_nonces"`
	LastDevNonce  *uint16  `json:"last_dev_nonce"`
	LastJoinNonce uint32   `json:"last_join_nonce"`
}

// ttsKey is a key as the text that stands in the file, so that it can be wiped.
type ttsKey struct {
	Key       jsontext.Value `json:"key"`
	Encrypted string         `json:"encrypted_key"`
}

// jsonList reads devices, one object after the other or in one array.
type jsonList struct {
	dec   *jsontext.Decoder
	begun bool
	count uint64
}

// isJSON tells whether a list begins as JSON does.
func isJSON(in *bufio.Reader) bool {
	for n := 1; n <= 512; n++ {
		head, err := in.Peek(n)
		if err != nil {
			return false
		}
		switch last := head[n-1]; last {
		case ' ', '\t', '\r', '\n', 0xEF, 0xBB, 0xBF: // white space, or a byte order mark
		default:
			return last == '{' || last == '['
		}
	}
	return false
}

func newJSONList(in *bufio.Reader) *jsonList {
	if mark, _ := in.Peek(3); string(mark) == "\xEF\xBB\xBF" {
		_, _ = in.Discard(3) // they were just seen
	}
	// Members that stand twice would let one reader see another key than the next.
	return &jsonList{dec: jsontext.NewDecoder(in, jsontext.AllowDuplicateNames(false))}
}

// next gives the next object as it stands in the list, valid until the call after.
// io.EOF after the last.
func (l *jsonList) next() ([]byte, error) {
	if !l.begun && l.dec.PeekKind() == '[' {
		_, _ = l.dec.ReadToken() // it was just seen
	}
	l.begun = true
	if l.dec.PeekKind() == ']' {
		_, _ = l.dec.ReadToken()
	}
	value, err := l.dec.ReadValue()
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	l.count++
	if err != nil {
		return nil, fmt.Errorf("%w: device %d is broken JSON", ErrKeyList, l.count)
	}
	return value, nil
}

// object makes a row of the present device of a JSON list. Line is its number.
func (r *KeyListReader) object(text []byte) (row SealedRow, err error) {
	r.lines.line = r.objects.count
	var o ttsObject
	if len(text) > maxObject || json.Unmarshal(text, &o) != nil {
		return row, r.bad(errors.New("not a device of The Things Stack: want an object with ids, lorawan_version and root_keys"))
	}
	row = SealedRow{Line: r.objects.count, MACVersion: r.opt.MACVersion}
	if r.opt.JoinEUI != nil {
		row.JoinEUI = *r.opt.JoinEUI
	}
	for _, read := range []func(*SealedRow, ttsObject) error{r.objectNames, r.objectNonces, r.objectKeys} {
		if err := read(&row, o); err != nil {
			return SealedRow{}, r.bad(err)
		}
	}
	if err := row.Check(); err != nil {
		return SealedRow{}, r.bad(err)
	}
	return row, nil
}

func (r *KeyListReader) objectNames(row *SealedRow, o ttsObject) (err error) {
	if row.DevEUI, err = lorawan.ParseEUI64(o.IDs.DevEUI); err != nil {
		return errors.New("dev_eui: want 16 hexadecimal digits")
	}
	if o.IDs.JoinEUI != "" || r.opt.JoinEUI == nil {
		if row.JoinEUI, err = lorawan.ParseEUI64(o.IDs.JoinEUI); err != nil {
			return errors.New("join_eui: want 16 hexadecimal digits")
		}
	}
	if o.Version != "" {
		if row.MACVersion, err = parseMACVersion(o.Version); err != nil {
			return errors.New("lorawan_version: want MAC_V1_0_3 or the like")
		}
	}
	return nil
}

func (r *KeyListReader) objectNonces(row *SealedRow, o ttsObject) error {
	if o.LastJoinNonce > uint32(lorawan.MaxJoinNonce) {
		return fmt.Errorf("last_join_nonce: want a number from 0 to %d", lorawan.MaxJoinNonce)
	}
	row.JoinNonceFloor = lorawan.JoinNonce(o.LastJoinNonce)
	if o.LastDevNonce != nil {
		o.UsedDevNonces = append(o.UsedDevNonces, *o.LastDevNonce)
	}
	for _, n := range o.UsedDevNonces {
		row.UsedDevNonces = append(row.UsedDevNonces, lorawan.DevNonce(n))
	}
	slices.Sort(row.UsedDevNonces)
	row.UsedDevNonces = slices.Compact(row.UsedDevNonces)
	return nil
}

func (r *KeyListReader) objectKeys(row *SealedRow, o ttsObject) error {
	nwk, err := o.RootKeys.NwkKey.read(colNwkKey)
	if err != nil {
		return err
	}
	defer clear(nwk)
	app, err := o.RootKeys.AppKey.read(colAppKey)
	if err != nil {
		return err
	}
	defer clear(app)
	if nwk == nil && app == nil {
		return errors.New("the device has no root keys here: its Join Server has them; have that one export them")
	}
	return r.sealKeys(row, nwk, app)
}

// read reads a key: hexadecimal digits, or base64 as protocol buffers have bytes;
// nil if there is none.
func (k ttsKey) read(col int) ([]byte, error) {
	defer clear(k.Key)
	text := bytes.Trim(k.Key, `"`)
	switch {
	case k.Encrypted != "":
		return nil, fmt.Errorf("%s is encrypted with a KEK of the server that wrote the list; have it exported in the clear, on this machine", columnNames[col])
	case len(text) == 0 || string(text) == "null":
		return nil, nil
	case len(text) == base64.StdEncoding.EncodedLen(rootLen):
		key := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Decode(key, text)
		if err != nil || n != rootLen {
			clear(key)
			return nil, fmt.Errorf("%s: want 32 hexadecimal digits", columnNames[col])
		}
		return checkKey(key[:n], col)
	}
	key, err := decodeKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: want 32 hexadecimal digits", columnNames[col])
	}
	return checkKey(key, col)
}
