package seal

import (
	"bytes"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"joinery/lorawan"
)

// Random keys of one test, by the letter that stands for them in its CSV.
type testKeys map[string][]byte

func newTestKeys() testKeys {
	return testKeys{"N": randomBytes(16), "A": randomBytes(16), "B": randomBytes(16)}
}

// fill replaces $N, $A and $B by keys in hexadecimal digits.
func (k testKeys) fill(text string) string {
	for letter, key := range k {
		text = strings.ReplaceAll(text, "$"+letter, hex.EncodeToString(key))
	}
	return text
}

// names opens a row, and gives the letters of its keys: "" for none, "?" for one
// unknown.
func (k testKeys) names(t testing.TB, o *Opener, row SealedRow) (names [2]string) {
	t.Helper()
	if err := o.Open(row.Item(), row.MAC, func(keys [][]byte) error {
		for i, key := range keys {
			names[i] = k.name(key)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return names
}

func (k testKeys) name(key []byte) string {
	if key == nil {
		return ""
	}
	for letter, have := range k {
		if bytes.Equal(key, have) {
			return letter
		}
	}
	return "?"
}

// got is one row in a form that can be compared and written down.
type got struct {
	Line             uint64
	JoinEUI, DevEUI  string
	Version          string
	Nwk, App, Root10 string
	Used             []lorawan.DevNonce
	Floor            lorawan.JoinNonce
}

// read reads a list: its rows, and its row errors as text.
func (k testKeys) read(t testing.TB, list string, opt KeyListOptions) (rows []got, bad []string) {
	t.Helper()
	r, err := KeyList(strings.NewReader(k.fill(list)), publicKey(t, recipient()), opt)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o, err := NewOpener(recipient(), r.Header())
	if err != nil {
		t.Fatal(err)
	}
	for row, err := range r.All() {
		var rowErr *RowError
		if errors.As(err, &rowErr) {
			for letter, key := range k {
				if strings.Contains(strings.ToLower(err.Error()), hex.EncodeToString(key)) {
					t.Errorf("key %s is repeated in an error of line %d", letter, rowErr.Line)
				}
			}
			bad = append(bad, err.Error())
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		names := k.names(t, o, row)
		rows = append(rows, got{
			row.Line, row.JoinEUI.String(), row.DevEUI.String(), row.MACVersion.String(),
			names[0], names[1], row.Root10, row.UsedDevNonces, row.JoinNonceFloor,
		})
	}
	return rows, bad
}

const (
	join = "70B3D57ED0000000"
	dev1 = "0004A310001AA901"
	dev2 = "0004A310001AA902"
)

func TestOurColumns(t *testing.T) {
	k := newTestKeys()
	rows, bad := k.read(t, strings.Join([]string{
		"JoinEUI,DevEUI,MACVersion,NwkKey,AppKey,UsedDevNonces,JoinNonceFloor",
		join + "," + dev1 + ",1.0.3,,$A,5 3|4 3,17",
		join + "," + dev2 + ",1.0.4,$N,,,",
		"",
		join + "," + dev1 + ",1.1,$N,$A,,16777215",
		`"70-b3-d5-7e-d0-00-00-00", 00:04:a3:10:00:1a:a9:02 ,1.0.2,$N,$A,"0 65535",0`,
		join + "," + dev2 + ",1.1.0,$N,$N,,\r",
	}, "\n"), KeyListOptions{})
	want := []got{
		{2, join, dev1, "1.0.3", "", "A", "AppKey", []lorawan.DevNonce{3, 4, 5}, 17},
		{3, join, dev2, "1.0.4", "N", "", "NwkKey", nil, 0},
		{5, join, dev1, "1.1.0", "N", "A", "NwkKey", nil, lorawan.MaxJoinNonce},
		{6, join, dev2, "1.0.2", "", "A", "AppKey", []lorawan.DevNonce{0, 65535}, 0},
		{7, join, dev2, "1.1.0", "N", "N", "NwkKey", nil, 0},
	}
	if diff := cmp.Diff(want, rows); diff != "" || len(bad) > 0 {
		t.Errorf("rows (-want +got):\n%s\nbad: %q", diff, bad)
	}
}

func TestTheThingsStackColumns(t *testing.T) {
	k := newTestKeys()
	rows, bad := k.read(t, strings.Join([]string{
		"\xEF\xBB\xBFid;dev_eui;join_eui;name;frequency_plan_id;lorawan_version;lorawan_phy_version;brand_id;app_key;nwk_key;supports_class_c",
		"eui-1;" + dev1 + ";" + join + ";first, with a comma;EU_863_870;MAC_V1_0_3;PHY_V1_0_3_REV_A;;$A;;true",
		`eui-2;` + dev2 + `;` + join + `;"quoted; and ""so""";EU_863_870;1.1.0;;;$A;$N;`,
		"eui-3;" + dev1 + ";" + join + ";;;MAC_V1_0;;;$A;$A;",
		"eui-4;" + dev2 + ";" + join + ";;;mac_v1_0_4;;;$A;$N;",
	}, "\r\n"), KeyListOptions{})
	want := []got{
		{2, join, dev1, "1.0.3", "", "A", "AppKey", nil, 0},
		{3, join, dev2, "1.1.0", "N", "A", "NwkKey", nil, 0},
		{4, join, dev1, "1.0.0", "", "A", "AppKey", nil, 0},
	}
	wantBad := []string{"line 5: a 1.0.x device has one root key, and this row has two different ones; say which one such devices join with"}
	if diff := cmp.Diff(want, rows) + cmp.Diff(wantBad, bad); diff != "" {
		t.Error(diff)
	}
}

func TestTheThingsStackAliasAndRoot10(t *testing.T) {
	k := newTestKeys()
	for root, want := range map[string]got{
		RootNwkKey: {2, join, dev1, "1.0.3", "N", "", "NwkKey", nil, 0},
		RootAppKey: {2, join, dev1, "1.0.3", "", "A", "AppKey", nil, 0},
	} {
		rows, bad := k.read(t, "dev_eui,app_eui,lorawan_version,app_key,nwk_key\n"+dev1+","+join+",1.0.3,$A,$N", KeyListOptions{Root10: root})
		if diff := cmp.Diff([]got{want}, rows); diff != "" || len(bad) > 0 {
			t.Errorf("%s: %s %q", root, diff, bad)
		}
	}
}

func TestOptionsStandForColumns(t *testing.T) {
	k := newTestKeys()
	eui := lorawan.EUI64FromUint64(0x70B3D57ED0000000)
	opt := KeyListOptions{JoinEUI: &eui, MACVersion: lorawan.MAC1_0_3}
	rows, bad := k.read(t, "deveui,appkey\n"+dev1+",$A\n", opt)
	if diff := cmp.Diff([]got{{2, join, dev1, "1.0.3", "", "A", "AppKey", nil, 0}}, rows); diff != "" || len(bad) > 0 {
		t.Errorf("%s %q", diff, bad)
	}
	// What a row says goes before.
	rows, bad = k.read(t, "DevEUI,AppKey,JoinEUI,MACVersion\n"+dev1+",$A,0000000000000000,1.0.4\n"+dev2+",$B,,\n", opt)
	want := []got{
		{2, "0000000000000000", dev1, "1.0.4", "", "A", "AppKey", nil, 0},
		{3, join, dev2, "1.0.3", "", "B", "AppKey", nil, 0},
	}
	if diff := cmp.Diff(want, rows); diff != "" || len(bad) > 0 {
		t.Errorf("%s %q", diff, bad)
	}
}

// Every bad row is named by its line, with a reason that repeats no value, and
// good rows go on.
func TestBadRows(t *testing.T) {
	k := newTestKeys()
	header := "JoinEUI,DevEUI,MACVersion,NwkKey,AppKey,UsedDevNonces,JoinNonceFloor\n"
	good := join + "," + dev1 + ",1.0.3,,$A,,\n"
	for _, c := range []struct{ row, reason string }{
		{join + "," + dev1 + ",1.0.3,,,,", "AppKey is missing"},
		{join + "," + dev1 + ",1.1,,$A,,", "a 1.1 device needs both NwkKey and AppKey"},
		{join + "," + dev1 + ",1.1,$N,,,", "a 1.1 device needs both NwkKey and AppKey"},
		{join + "," + dev1 + ",1.0.3,,${A}00,,", "AppKey: want 32 hexadecimal digits"},
		{join + "," + dev1 + ",1.0.3,,$A$A,,", "AppKey: want 32 hexadecimal digits"},
		{join + "," + dev1 + ",1.0.3,,0x$A,,", "AppKey: want 32 hexadecimal digits"},
		{join + "," + dev1 + ",1.1,X$N,$A,,", "NwkKey: want 32 hexadecimal digits"},
		{join + "," + dev1 + ",1.0.3,," + strings.Repeat("0", 32) + ",,", "AppKey is all zeros, which is no key; leave the field empty if there is none"},
		{"$A," + dev1 + ",1.0.3,,$A,,", "JoinEUI: want 16 hexadecimal digits"},
		{"," + dev1 + ",1.0.3,,$A,,", "JoinEUI is missing"},
		{join + ",$A,1.0.3,," + dev1 + ",,", "DevEUI: want 16 hexadecimal digits"},
		{join + ",,1.0.3,,$A,,", "DevEUI is missing or zero"},
		{join + ",0000000000000000,1.0.3,,$A,,", "DevEUI is missing or zero"},
		{join + "," + dev1 + ",$A,,$A,,", "MACVersion: want 1.0.0, 1.0.1, 1.0.2, 1.0.3, 1.0.4 or 1.1.0"},
		{join + "," + dev1 + ",,,$A,,", "MACVersion is missing"},
		{join + "," + dev1 + ",1.0.3,,$A,$A,", "UsedDevNonces: want numbers from 0 to 65535, separated by spaces or |"},
		{join + "," + dev1 + ",1.0.3,,$A,1 65536,", "UsedDevNonces: want numbers from 0 to 65535, separated by spaces or |"},
		{join + "," + dev1 + ",1.0.3,,$A,-1,", "UsedDevNonces: want numbers from 0 to 65535, separated by spaces or |"},
		{join + "," + dev1 + ",1.0.3,,$A,,16777216", "JoinNonceFloor: want a number from 0 to 16777215"},
		{join + "," + dev1 + ",1.0.3,,$A,,$A", "JoinNonceFloor: want a number from 0 to 16777215"},
		{join + "," + dev1 + ",1.0.3,,$A", "5 fields; the header line has 7"},
		{join + "," + dev1 + ",1.0.3,,$A,,,", "8 fields; the header line has 7"},
		{join + "," + dev1 + `,1.0.3,,"$A,,`, errQuote.Error()},
		{join + "," + dev1 + `,1.0.3,,"$A"x,,`, errQuote.Error()},
		{"\x00\xFF\xFE", "1 fields; the header line has 7"},
		{strings.Repeat("$A", maxLine/32+1), errLineTooLong.Error()},
	} {
		row := strings.ReplaceAll(c.row, "${A}", "$A")
		rows, bad := k.read(t, header+good+row+"\n"+good, KeyListOptions{})
		want := []got{
			{2, join, dev1, "1.0.3", "", "A", "AppKey", nil, 0},
			{4, join, dev1, "1.0.3", "", "A", "AppKey", nil, 0},
		}
		if diff := cmp.Diff(want, rows) + cmp.Diff([]string{"line 3: " + c.reason}, bad); diff != "" {
			t.Errorf("%.80s: %s", c.row, diff)
		}
	}
}

func TestListsThatCannotBeRead(t *testing.T) {
	k := newTestKeys()
	for name, c := range map[string]struct{ list, say string }{
		"empty":          {"", "empty"},
		"no header line": {join + "," + dev1 + ",1.0.3,$N,$A", "column 1 of the header line"},
		"key first":      {"$A,$N", "column 1 of the header line"},
		"unknown column": {"JoinEUI,DevEUI,MACVersion,AppKey,UsedDevNonce", "column 5"},
		"twice":          {"JoinEUI,DevEUI,MACVersion,AppKey,AppKey", "two columns hold AppKey"},
		"alias twice":    {"join_eui,app_eui,dev_eui,lorawan_version,app_key", "two columns hold JoinEUI"},
		"no DevEUI":      {"JoinEUI,MACVersion,AppKey", "no column for DevEUI"},
		"no key":         {"JoinEUI,DevEUI,MACVersion", "no column for NwkKey or AppKey"},
		"no version":     {"JoinEUI,DevEUI,AppKey", "no column for MACVersion"},
		"spreadsheet":    {"PK\x03\x04rest", "spreadsheet"},
		"UTF-16":         {"\xFF\xFEJ\x00", "UTF-16"},
		"binary":         {"J\x00o", "not text"},
		"sealed already": {`{"format":"joinery-keylist/1"}`, "sealed already"},
		"quote":          {`JoinEUI,"DevEUI`, "header line"},
		"too long":       {strings.Repeat("x", maxLine+1), "longer"},
	} {
		_, err := KeyList(strings.NewReader(k.fill(c.list)), publicKey(t, recipient()), KeyListOptions{})
		if !errors.Is(err, ErrKeyList) || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", name, err)
		}
		for letter, key := range k {
			if err != nil && strings.Contains(err.Error(), hex.EncodeToString(key)) {
				t.Errorf("%s: key %s is repeated in the error", name, letter)
			}
		}
	}
	if _, err := KeyList(strings.NewReader("DevEUI"), publicKey(t, recipient()), KeyListOptions{Root10: "x"}); !errors.Is(err, ErrKeyList) {
		t.Errorf("wrong option: %v", err)
	}
	failing := io.MultiReader(strings.NewReader("JoinEUI,DevEUI,MACVersion,AppKey\n"), failingReader{})
	r, err := KeyList(failing, publicKey(t, recipient()), KeyListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, err := range r.All() {
		if seen++; !errors.Is(err, errDisk) || seen > 1 {
			t.Fatalf("%d: %v", seen, err)
		}
	}
	if seen == 0 {
		t.Error("a failing disk looks like the end of the list")
	}
}

var errDisk = errors.New("disk")

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errDisk }

// listOf makes a CSV of n devices without holding it.
func listOf(n int) io.Reader {
	r, w := io.Pipe()
	go func() {
		_, _ = fmt.Fprintln(w, "JoinEUI,DevEUI,MACVersion,NwkKey,AppKey,UsedDevNonces,JoinNonceFloor")
		key := randomBytes(16)
		for i := range n {
			_, _ = fmt.Fprintf(w, "%s,%016X,1.1,%x,%x,1 2 3,7\n", join, i+1, key, key)
		}
		_ = w.Close()
	}()
	return r
}

// 100,000 devices go through with memory that does not grow.
func TestLongListsStream(t *testing.T) {
	const devices = 100_000
	r, err := KeyList(listOf(devices), publicKey(t, recipient()), KeyListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pr, pw := io.Pipe()
	go func() { _ = pw.CloseWithError(sealInto(pw, r)) }()
	f, err := NewFileReader(pr)
	if err != nil {
		t.Fatal(err)
	}
	var peak uint64
	n := 0
	for ; ; n++ {
		row, err := f.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if row.Line != uint64(n+2) || row.DevEUI.Uint64() != uint64(n+1) {
			t.Fatalf("row %d is of line %d", n, row.Line)
		}
		if n%10_000 == 0 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
		}
	}
	if n != devices {
		t.Errorf("%d devices of %d", n, devices)
	}
	if peak > 16<<20 {
		t.Errorf("%d MiB of heap in use", peak>>20)
	}
}

func sealInto(w io.Writer, r *KeyListReader) error {
	f, err := NewFileWriter(w, r.Header())
	if err != nil {
		return err
	}
	for row, err := range r.All() {
		if err != nil {
			return err
		}
		if err := f.Write(row); err != nil {
			return err
		}
	}
	return f.Flush()
}

// Whatever the list holds: no panic, no endless loop, rows that check, and
// errors that name a line.
func FuzzKeyList(f *testing.F) {
	f.Add([]byte("JoinEUI,DevEUI,MACVersion,NwkKey,AppKey\n" + join + "," + dev1 + ",1.1," + strings.Repeat("1F", 16) + "," + strings.Repeat("2E", 16)))
	f.Add([]byte("dev_eui;app_eui;lorawan_version;app_key;x\n" + dev1 + ";" + join + ";MAC_V1_0_3;" + strings.Repeat("1F", 16) + ";\"a\"\"b\"\n\"\n;;;;\n"))
	f.Add([]byte("DevEUI,JoinEUI,MACVersion,AppKey,UsedDevNonces,JoinNonceFloor\n1,2,3,4,5 6|7,8\n"))
	f.Add([]byte(`[{"ids":{"dev_eui":"` + dev1 + `","join_eui":"` + join + `"},"root_keys":{"app_key":{"key":"` + strings.Repeat("1F", 16) + `"}}},7]`))
	to := publicKey(f, recipient())
	f.Fuzz(func(t *testing.T, list []byte) {
		r, err := KeyList(bytes.NewReader(list), to, KeyListOptions{MACVersion: lorawan.MAC1_0_3})
		if err != nil {
			if !errors.Is(err, ErrKeyList) {
				t.Errorf("unnamed error %v", err)
			}
			return
		}
		last := uint64(0)
		for row, err := range r.All() {
			line := row.Line
			var bad *RowError
			if errors.As(err, &bad) {
				line = bad.Line
			} else if errors.Is(err, ErrKeyList) {
				return // JSON that breaks off
			} else if err != nil {
				t.Fatal(err)
			} else if err := row.Check(); err != nil {
				t.Errorf("line %d: %v", line, err)
			}
			if line <= last {
				t.Errorf("line %d comes after line %d", line, last)
			}
			last = line
		}
	})
}

// One line of CSV splits as encoding/csv splits it, where that accepts it.
func FuzzSplitFields(f *testing.F) {
	for _, s := range []string{``, `a,b`, `"a,b",c`, `"a""b"`, `"a`, `a"b`, `,,`, `" a ",b `} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.ContainsAny(line, "\r\n") {
			return
		}
		got, err := splitFields([]byte(line), ',', nil)
		reference := csv.NewReader(strings.NewReader(line))
		want, wantErr := reference.Read()
		if wantErr != nil {
			return // it also refuses a quotation mark within an unquoted field
		}
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for i := range want {
			want[i] = string(bytes.TrimSpace([]byte(want[i])))
		}
		have := make([]string, len(got))
		for i := range got {
			have[i] = string(got[i])
		}
		if !slices.Equal(have, want) {
			t.Errorf("%q: %q, want %q", line, have, want)
		}
	})
}
