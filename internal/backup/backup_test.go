package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
)

// state is a Source and a Target in memory.
type state struct {
	taken   time.Time
	names   []string
	columns map[string][]string
	rows    map[string][][]any
	header  Header
	refuse  error
}

func (s *state) TakenAt() time.Time            { return s.taken }
func (s *state) Schema() int                   { return 3 }
func (s *state) Epoch() int64                  { return 7 }
func (s *state) Tables() []string              { return s.names }
func (s *state) Columns(table string) []string { return s.columns[table] }

func (s *state) Count() (n int64, err error) {
	for _, rows := range s.rows {
		n += int64(len(rows))
	}
	return n, nil
}

func (s *state) Rows(table string, fn func([]any) error) error {
	for _, row := range s.rows[table] {
		if err := fn(row); err != nil {
			return err
		}
	}
	return nil
}

func (s *state) Begin(_ context.Context, h Header) error { s.header = h; return s.refuse }

func (s *state) Insert(_ context.Context, table string, rows [][]any) error {
	s.rows[table] = append(s.rows[table], rows...)
	return nil
}

func (s *state) empty() *state {
	return &state{names: s.names, columns: s.columns, rows: map[string][][]any{}}
}

const sampleRows = 1500

// sample has rows of every kind of value, more than one frame of them.
func sample() *state {
	s := &state{
		taken: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), names: []string{"a", "b", "none"},
		columns: map[string][]string{"a": {"id", "text", "blob"}, "b": {"x"}, "none": {"y"}},
		rows:    map[string][][]any{"b": {{int64(-1)}, {int64(1<<63 - 1)}, {nil}}},
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range sampleRows {
		blob := make([]byte, r.IntN(400))
		for k := range blob {
			blob[k] = byte(r.Uint32())
		}
		s.rows["a"] = append(s.rows["a"], []any{int64(i), fmt.Sprintf("text %d é", i), blob})
	}
	s.rows["a"][0] = []any{int64(0), "", []byte{}}
	s.rows["a"][1] = []any{int64(1), nil, nil}
	return s
}

func keys(t *testing.T) (Recipients, Identities) {
	t.Helper()
	i, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return Recipients{i.Recipient()}, Identities{i}
}

func written(t *testing.T, s *state, to Recipients) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Write(t.Context(), &b, to, s, "test", nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	s := sample()
	first, mine := keys(t)
	second, others := keys(t)
	var b bytes.Buffer
	var seen, all int64
	wrote, err := Write(t.Context(), &b, append(first, second...), s, "test", func(done, of int64) { seen, all = done, of })
	if err != nil {
		t.Fatal(err)
	}
	if seen != sampleRows+3 || all != sampleRows+3 || wrote.Tables["a"] != sampleRows || wrote.Schema != 3 || wrote.Epoch != 7 {
		t.Errorf("progress %d of %d; %+v", seen, all, wrote)
	}
	if bytes.Contains(b.Bytes(), []byte("text 4")) {
		t.Error("the backup is readable")
	}
	for _, identities := range []Identities{mine, others} {
		got := s.empty()
		read, err := Read(t.Context(), bytes.NewReader(b.Bytes()), identities, got, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wrote, read); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(s.rows, got.rows); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := Read(t.Context(), bytes.NewReader(b.Bytes()), mine, nil, nil); err != nil {
		t.Errorf("verified: %v", err)
	}
}

// A target may have its columns in another order, and no others.
func TestColumnsAreFoundByName(t *testing.T) {
	s := sample()
	to, mine := keys(t)
	b := written(t, s, to)
	got := s.empty()
	got.columns = map[string][]string{"a": {"blob", "id", "text"}, "b": {"x"}, "none": {"y"}}
	if _, err := Read(t.Context(), bytes.NewReader(b), mine, got, nil); err != nil {
		t.Fatal(err)
	}
	if row := got.rows["a"][7]; row[1] != int64(7) || row[2] != "text 7 é" {
		t.Errorf("row %v", row)
	}
	for name, change := range map[string]func(*state){
		"columns":       func(s *state) { s.columns = map[string][]string{"a": {"id", "text"}, "b": {"x"}, "none": {"y"}} },
		"table missing": func(s *state) { s.names = append([]string{"more"}, s.names...) },
		"table unknown": func(s *state) { s.columns = map[string][]string{"a": {"id", "text", "blob"}, "b": {"x"}} },
	} {
		other := s.empty()
		change(other)
		if _, err := Read(t.Context(), bytes.NewReader(b), mine, other, nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	refusing := s.empty()
	refusing.refuse = io.ErrClosedPipe
	if _, err := Read(t.Context(), bytes.NewReader(b), mine, refusing, nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a target that refuses: %v", err)
	}
}

// A backup that was cut short, changed or is another's is refused, wherever.
func TestSpoiltBackupsAreRefused(t *testing.T) {
	s := sample()
	to, mine := keys(t)
	b := written(t, s, to)
	refused := func(what string, b []byte, kind error) {
		t.Helper()
		if _, err := Read(t.Context(), bytes.NewReader(b), mine, s.empty(), nil); !errors.Is(err, kind) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for cut := 0; cut < len(b); cut += 1 + len(b)/30 {
		refused(fmt.Sprintf("cut at %d of %d", cut, len(b)), b[:cut], ErrDamaged)
	}
	refused("the last byte cut", b[:len(b)-1], ErrDamaged)
	refused("something behind it", append(bytes.Clone(b), 0), ErrDamaged)
	header := bytes.Index(b, []byte("\n--- ")) + 50
	for at := header; at < len(b); at += 1 + len(b)/30 {
		spoilt := bytes.Clone(b)
		spoilt[at] ^= 1
		refused(fmt.Sprintf("changed at %d of %d", at, len(b)), spoilt, ErrDamaged)
	}
	_, others := keys(t)
	_, err := Read(t.Context(), bytes.NewReader(b), others, nil, nil)
	if !errors.Is(err, ErrIdentity) {
		t.Errorf("another's identity: %v", err)
	}
}

// What is encrypted and compressed in order, and yet no whole backup.
func TestForgedFramesAreRefused(t *testing.T) {
	var whole bytes.Buffer
	sum := Summary{Header: Header{Schema: 3}, Tables: map[string]int64{}}
	if err := writeFrames(t.Context(), &whole, sample(), &sum, nil); err != nil {
		t.Fatal(err)
	}
	read := func(b []byte) error {
		f, err := newFrameReader(bytes.NewReader(b))
		if err != nil {
			return err
		}
		rd := &reading{ctx: t.Context(), frames: f, sum: Summary{Tables: map[string]int64{}}}
		err = rd.header()
		for ended := false; err == nil && !ended; {
			ended, err = rd.step()
		}
		return err
	}
	if err := read(whole.Bytes()); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		b := bytes.Clone(whole.Bytes())
		switch at := r.IntN(len(b)); r.IntN(3) {
		case 0:
			b = b[:at]
		case 1:
			b[at] ^= 1 << r.IntN(8)
		default:
			b = append(b[:at], b[min(len(b), at+1+r.IntN(100)):]...)
		}
		if err := read(b); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%v", err)
		}
	}
}

func TestABackupIsNeverInTheClear(t *testing.T) {
	var b bytes.Buffer
	if _, err := Write(t.Context(), &b, nil, sample(), "test", nil); err == nil || b.Len() > 0 {
		t.Errorf("%d bytes without a recipient, %v", b.Len(), err)
	}
}

func TestWritingStopsWithItsContext(t *testing.T) {
	to, _ := keys(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Write(ctx, io.Discard, to, sample(), "test", func(int64, int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestKeyFiles(t *testing.T) {
	i, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	identity := write("identity", "# comment\n"+i.String()+"\n", 0o600)
	list := write("recipients", "# ours\n"+i.Recipient().String()+"\n", 0o644)
	if r, err := ParseRecipients([]string{i.Recipient().String()}, []string{list}); err != nil || len(r) != 2 {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := RecipientOf(identity); err != nil || r != i.Recipient().String() {
		t.Errorf("%s, %v", r, err)
	}
	// A secret in the wrong place is refused and not repeated.
	for what, fn := range map[string]func() error{
		"secret as recipient": func() error { _, err := ParseRecipients([]string{i.String()}, nil); return err },
		"secret in a list":    func() error { _, err := ParseRecipients(nil, []string{identity}); return err },
		"open identity":       func() error { _, err := ReadIdentities(write("open", i.String(), 0o644)); return err },
		"no identity":         func() error { _, err := ReadIdentities(write("cut", i.String()[:40], 0o600)); return err },
		"missing":             func() error { _, err := ReadIdentities(filepath.Join(dir, "missing")); return err },
	} {
		if err := fn(); err == nil || strings.Contains(err.Error(), i.String()[:30]) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
