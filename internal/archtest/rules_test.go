package archtest

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"slices"
	"testing"
)

// The rules themselves, on imports that nobody has written.
func TestMayImport(t *testing.T) {
	for _, tc := range []struct {
		from, to string
		want     bool
	}{
		{"internal/activation", "", true},
		{"internal/activation", "internal/keyring", true},
		{"internal/activation", "internal/fleet", false},
		{"internal/store", "internal/keyring", false},
		{"internal/keyring", "internal/activation", false},
		{"internal/keyring/soft", "internal/keyring", true},
		{"internal/keyring", "internal/keyring/soft", false},
		{"internal/interop", "internal/api", false},
		{"internal/config", "internal/daemon", false},
		{"internal/daemon", "internal/config", true},
		{"", "client", false},
		{"client", "", true},
		{"lorawan", "backend", false},
		{"backend", "lorawan", true},
		{"internal/sim", "lorawan", true},
		{"internal/sim", "", false},
		{"internal/sim", "internal/sim/device", true},
		{"internal/sim", "internal/keyring/lwcrypto", false},
		{"internal/api", "internal/sim", false},
		{"cmd/joinsim", "internal/sim", true},
		{"cmd/joinery", "cmd/joinctl", false},
	} {
		from, _ := roomOf(tc.from)
		to, _ := roomOf(tc.to)
		if got := mayImport(tc.from, from, tc.to, to); got != tc.want {
			t.Errorf("%s imports %s: allowed = %v, want %v", show(tc.from), show(tc.to), got, tc.want)
		}
	}
}

// The search for ways out, on a package made for it.
func TestLeaksAreFound(t *testing.T) {
	const source = `package p
import "io"
type Key struct { hidden []byte; Raw []byte; Name string }
type Digest [32]byte
type Short [8]byte
type Verbs interface { Fetch(name string) ([]byte, error); Check(name string) error }
func Fetch() []byte { return nil }
func Pair() (*Key, [16]byte) { return nil, [16]byte{} }
func Use(f func(key []byte) error) error { return nil }
func Dump(w io.Writer) error { return nil }
func Count() (n int, s Short, err error) { return }
func Any() any { return nil }
func Many() map[string][]Digest { return nil }
func (Key) Bytes() []byte { return nil }
func (Key) take(b []byte) {}
`
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "p.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	conf := types.Config{Importer: importer.ForCompiler(fset, "source", nil)}
	p, err := conf.Check("p", fset, []*ast.File{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range exported(p) {
		got = append(got, e.leaks...)
	}
	want := []string{
		"p.Any result 0", "p.Dump writer w", "p.Fetch result 0", "p.Key.Raw", "p.Key.Bytes result 0",
		"p.Many result 0", "p.Pair result 1", "p.Use callback f", "p.Verbs.Fetch result 0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
