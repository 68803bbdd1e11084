package joinery

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The text form, written out by hand: Crockford's digits of 64 bits and one
// zero bit, 5 at a time from the most significant.
func TestIDText(t *testing.T) {
	for _, c := range []struct {
		id   interface{ String() string }
		want string
	}{
		{OrgID(1), "org_0000000000002"},
		{DeviceID(31), "dev_000000000001y"},
		{KeySetID(1 << 62), "kst_8000000000000"},
		{PeerID(1<<63 - 1), "peer_fzzzzzzzzzzzy"},
		{KEKID(0x0123456789ABCDEF), "kek_04hmasw9nf6yy"},
		{ActivationID(16), "act_0000000000010"},
		{SignerID(1 << 35), "sgn_0000020000000"},
		{ImportID(2), "imp_0000000000004"},
		{APIKeyID(3), "key_0000000000006"},
	} {
		if got := c.id.String(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestIDRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := DeviceID(rapid.Int64Range(1, 1<<63-1).Draw(t, "id"))
		back, err := ParseDeviceID(id.String())
		if err != nil || back != id {
			t.Fatalf("%s came back as %d, %v", id, back, err)
		}
	})
}

// There is one text form: no other text of the same number is read.
func TestIDOneTextForm(t *testing.T) {
	id := NewDeviceID()
	text := id.String()
	for name, s := range map[string]string{
		"empty":               "",
		"no prefix":           strings.TrimPrefix(text, "dev_"),
		"another kind":        strings.Replace(text, "dev_", "org_", 1),
		"upper case":          strings.ToUpper(text),
		"upper case digits":   "dev_" + strings.ToUpper(strings.TrimPrefix(text, "dev_")) + "!",
		"short":               text[:len(text)-1],
		"long":                text + "0",
		"space":               text + " ",
		"newline inside":      text[:8] + "\n" + text[9:],
		"zero":                "dev_0000000000000",
		"negative":            "dev_g000000000000",
		"bits after the last": "dev_0000000000003",
		"no digit of ours":    "dev_000000000000i",
		"more than ASCII":     "dev_00000000000é",
	} {
		if got, err := ParseDeviceID(s); !errors.Is(err, ErrID) || got != 0 {
			t.Errorf("%s: read %d, %v", name, got, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`dev_[0-9a-z]{13}`).Draw(t, "text")
		if id, err := ParseDeviceID(s); err == nil && id.String() != s {
			t.Fatalf("%q is read as %s", s, id)
		}
	})
}

func TestIDKinds(t *testing.T) {
	id := NewPeerID()
	if _, err := ParseOrgID(id.String()); !errors.Is(err, ErrID) {
		t.Fatalf("a peer's id was read as an organisation's: %v", err)
	}
	var holder struct{ Peer PeerID }
	b, err := json.Marshal(map[string]PeerID{"Peer": id})
	if err == nil {
		err = json.Unmarshal(b, &holder)
	}
	if err != nil || holder.Peer != id {
		t.Fatalf("%s: %+v, %v", b, holder, err)
	}
	if err := json.Unmarshal([]byte(`{"Peer":"`+NewOrgID().String()+`"}`), &holder); err == nil {
		t.Fatal("JSON with the id of another kind was read")
	}
}

// Identifiers drawn at once are positive, and no two are equal.
func TestNewIDIsUnique(t *testing.T) {
	const drawers, each = 16, 20_000
	drawn := make([][]ActivationID, drawers)
	var wg sync.WaitGroup
	for i := range drawn {
		wg.Go(func() {
			drawn[i] = make([]ActivationID, each)
			for k := range each {
				drawn[i][k] = NewActivationID()
			}
		})
	}
	wg.Wait()
	seen := make(map[ActivationID]bool, drawers*each)
	for _, ids := range drawn {
		for k, id := range ids {
			if id <= 0 || seen[id] {
				t.Fatalf("%d is not positive, or was drawn twice", id)
			}
			if k > 0 && id <= ids[k-1] {
				t.Fatalf("%d was drawn after %d", id, ids[k-1])
			}
			seen[id] = true
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(NewDeviceID().String())
	f.Add("dev_")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseDeviceID(s); err == nil && (id <= 0 || id.String() != s) {
			t.Fatalf("%q is read as %s", s, id)
		}
	})
}

// P9: with whatever clock processes start, and however it jumps while they run,
// identifiers are positive, rise within a process and differ between processes.
func TestIDsUnderWrongClocks(t *testing.T) {
	year := func(y int) time.Time { return time.Date(y, 5, 17, 10, 30, 0, 0, time.UTC) }
	frozen := []time.Time{year(2026)}
	clocks := map[string][]time.Time{
		"right": frozen, "1970": {time.Unix(0, 0)}, "the epoch": {idEpoch}, "2016": {year(2016)}, "2036": {year(2036)},
		"2200": {year(2200)}, "5000": {year(5000)}, "the year 1": {{}},
		"back ten years":         {year(2026), year(2016)},
		"forth ten years":        {year(2026), year(2036)},
		"to and fro":             {year(2026), year(2036), year(2016), year(1970), year(2200), year(2026)},
		"set after a wrong boot": {year(1970), year(2026)},
	}
	const processes, each = 5, 100 // so few that the chance of a coincidence is 1 in 10,000
	seen := map[int64]string{}
	for name, times := range clocks {
		for range processes {
			var process numbers
			last := int64(0)
			for n := range each {
				id := process.draw(times[n*len(times)/each])
				if id <= last {
					t.Fatalf("%s: %d was drawn after %d", name, id, last)
				}
				if before, twice := seen[id]; twice {
					t.Fatalf("%d was drawn twice: %s and %s", id, before, name)
				}
				seen[id], last = name, id
			}
		}
	}
}
