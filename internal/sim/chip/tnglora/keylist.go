package tnglora

import (
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"joinery/lorawan"
)

// serialPrefix makes serial numbers of ours, behind which the DevEUI stands, as the
// factory does.
const serialPrefix = 0x4A

// SerialOf gives the serial number, 9 bytes, of an element that has none of its own.
func SerialOf(devEUI lorawan.EUI64) []byte { return append([]byte{serialPrefix}, devEUI[:]...) }

// ReadKeyList reads the contents of chips from a key list: CSV with a head, and the
// columns JoinEUI, DevEUI, NwkKey and AppKey, of which an element of 1.0.x may lack
// one. Columns that may be there: Serial (18 digits), DeviceKey and RekeyKey (64). All
// are hexadecimal. A device key that is missing is drawn. Other columns are left alone, so that the list that is imported at
// a Join Server serves here, too. Errors name lines, and no keys.
func ReadKeyList(r io.Reader) (list []Content, err error) {
	in := csv.NewReader(r)
	head, err := in.Read()
	if err != nil {
		return nil, errors.New("key list: want a head with the columns JoinEUI, DevEUI, NwkKey, AppKey")
	}
	at := map[string]int{}
	for i, name := range head {
		at[strings.ToLower(strings.TrimSpace(name))] = i
	}
	for _, name := range []string{"JoinEUI", "DevEUI"} {
		if _, ok := at[strings.ToLower(name)]; !ok {
			return nil, fmt.Errorf("key list: line 1: the column %s is missing", name)
		}
	}
	for line := 2; ; line++ {
		fields, err := in.Read()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("key list: line %d: not as many fields as line 1 has, or not CSV", line)
		}
		c, err := content(func(name string) string {
			if i, ok := at[strings.ToLower(name)]; ok {
				return strings.TrimSpace(fields[i])
			}
			return ""
		})
		if err != nil {
			return nil, fmt.Errorf("key list: line %d: %w", line, err)
		}
		list = append(list, c)
	}
}

// content reads one row.
func content(field func(string) string) (c Content, err error) {
	if c.JoinEUI, err = lorawan.ParseEUI64(field("JoinEUI")); err != nil {
		return c, errors.New("JoinEUI: want 16 hexadecimal digits")
	}
	if c.DevEUI, err = lorawan.ParseEUI64(field("DevEUI")); err != nil {
		return c, errors.New("DevEUI: want 16 hexadecimal digits")
	}
	for _, f := range []struct {
		name string
		into *[]byte
		size int
	}{{"NwkKey", &c.NwkKey, 16}, {"AppKey", &c.AppKey, 16}, {"DeviceKey", &c.DeviceKey, 32}, {"RekeyKey", &c.RekeyKey, 32}} {
		text := field(f.name)
		if text == "" {
			continue
		}
		if *f.into, err = hex.DecodeString(text); err != nil || len(*f.into) != f.size {
			return c, fmt.Errorf("%s: want %d hexadecimal digits", f.name, 2*f.size)
		}
	}
	if c.NwkKey == nil && c.AppKey == nil {
		return c, errors.New("NwkKey and AppKey are empty: want one at least")
	}
	if c.DeviceKey == nil {
		c.DeviceKey = drawn(32)
		c.DeviceKey[0] &= 0x7F // below the order of the curve
	}
	copy(c.Serial[:], SerialOf(c.DevEUI))
	if text := field("Serial"); text != "" {
		b, err := hex.DecodeString(text)
		if err != nil || len(b) != len(c.Serial) {
			return c, fmt.Errorf("serial: want %d hexadecimal digits", 2*len(c.Serial))
		}
		copy(c.Serial[:], b)
	}
	return c, nil
}
