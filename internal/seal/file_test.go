package seal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"joinery/lorawan"
)

func TestSealedFile(t *testing.T) {
	k := newTestKeys()
	eui := lorawan.EUI64FromUint64(1)
	list := k.fill("DevEUI,MACVersion,NwkKey,AppKey,UsedDevNonces,JoinNonceFloor\n" +
		dev1 + ",1.0.3,,$A,7 8,9\n" + dev2 + ",1.1,$N,$A,,\n")
	r, err := KeyList(strings.NewReader(list), publicKey(t, recipient()), KeyListOptions{JoinEUI: &eui})
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := sealInto(&file, r); err != nil {
		t.Fatal(err)
	}
	for letter, key := range k {
		if bytes.Contains(file.Bytes(), key) || strings.Contains(strings.ToLower(file.String()), hex.EncodeToString(key)) {
			t.Errorf("key %s is in the file", letter)
		}
	}
	f, err := NewFileReader(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOpener(recipient(), f.Header())
	if err != nil {
		t.Fatal(err)
	}
	first, err := f.Next()
	if err != nil {
		t.Fatal(err)
	}
	if k.names(t, o, first) != [2]string{"", "A"} || first.NwkKey != nil || first.Line != 2 || first.JoinNonceFloor != 9 ||
		!slices.Equal(first.UsedDevNonces, []lorawan.DevNonce{7, 8}) || first.MACVersion != lorawan.MAC1_0_3 || first.JoinEUI != eui {
		t.Errorf("first row: %+v", first)
	}
	second, err := f.Next()
	if err != nil || k.names(t, o, second) != [2]string{"N", "A"} {
		t.Errorf("second row: %v", err)
	}
	if _, err := f.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("end: %v", err)
	}
	lines := strings.SplitAfter(file.String(), "\n")
	if !strings.HasPrefix(lines[0], `{"format":"joinery-keylist/1","seal":{"format":"joinery-seal/1","kid":"`) {
		t.Errorf("first line %s", lines[0])
	}
	if !strings.HasPrefix(lines[1], `{"line":2,"joinEUI":"0000000000000001","devEUI":"`+dev1+`","macVersion":"1.0.3","appKey":"`) ||
		!strings.Contains(lines[1], `","root10":"AppKey","usedDevNonces":[7,8],"joinNonceFloor":9,"mac":"`) {
		t.Errorf("second line %s", lines[1])
	}

	// A damaged row is named by its line in this file; the others are whole.
	for name, damaged := range map[string]string{
		"cut short":      lines[1][:40] + "\n",
		"unknown member": strings.Replace(lines[1], "{", `{"x":0,`, 1),
		"duplicate":      strings.Replace(lines[1], "{", `{"line":1,`, 1),
		"no version":     strings.Replace(lines[1], `"macVersion":"1.0.3",`, "", 1),
		"no root":        strings.Replace(lines[1], `"AppKey"`, `"Key"`, 1),
		"other root":     strings.Replace(lines[1], `"AppKey"`, `"NwkKey"`, 1),
		"short key":      strings.Replace(lines[1], `"appKey":"`, `"appKey":"AAAA","nwkKey":"`, 1),
		"1.1 and one":    strings.Replace(lines[1], `1.0.3`, "1.1", 1),
		"no DevEUI":      strings.Replace(lines[1], dev1, strings.Repeat("0", 16), 1),
		"floor":          strings.Replace(lines[1], `"joinNonceFloor":9`, `"joinNonceFloor":16777216`, 1),
		"DevNonce":       strings.Replace(lines[1], `[7,`, `[65536,`, 1),
		"no MAC":         lines[1][:strings.Index(lines[1], `,"mac"`)] + "}\n",
		"short MAC":      strings.Replace(lines[1], `"mac":"`, `"mac":"AAAA`, 1),
		"too long":       strings.Repeat(" ", maxLine+1) + "\n",
	} {
		f, err := NewFileReader(strings.NewReader(lines[0] + damaged + lines[2]))
		if err != nil {
			t.Fatal(err)
		}
		var bad *RowError
		if _, err := f.Next(); !errors.As(err, &bad) || bad.Line != 2 {
			t.Errorf("%s: %v", name, err)
		}
		if row, err := f.Next(); err != nil || row.Line != 3 {
			t.Errorf("%s: the row after it: %v", name, err)
		}
	}
	for name, first := range map[string]string{
		"empty": "", "no JSON": "DevEUI\n", "other format": `{"format":"joinery-keylist/2","seal":{}}`,
		"no seal": `{"format":"joinery-keylist/1"}`, "too long": strings.Repeat(" ", maxLine+1),
	} {
		if _, err := NewFileReader(strings.NewReader(first)); !errors.Is(err, ErrKeyList) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFileWriterRefusesWhatItCouldNotRead(t *testing.T) {
	var b bytes.Buffer
	if _, err := NewFileWriter(&b, Header{}); !errors.Is(err, ErrHeader) {
		t.Errorf("no header: %v", err)
	}
	s, err := NewSealer(publicKey(t, recipient()))
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewFileWriter(&b, s.Header())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(SealedRow{Line: 5}); err == nil || !strings.Contains(err.Error(), "line 5") {
		t.Errorf("an incomplete row: %v", err)
	}
}
