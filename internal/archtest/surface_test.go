package archtest

import (
	"flag"
	"fmt"
	"go/types"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/go/packages"
)

var update = flag.Bool("update", false, "write testdata/keyring-surface.txt anew; every changed line of it is then for a reviewer")

// custodyPackages are the packages behind which keys lie, and the nouns, of
// which no field may be able to hold one.
var custodyPackages = []string{
	module + "/internal/keyring", module + "/internal/keyring/soft", module + "/internal/keyring/hsm", module + "/internal/keyring/remote", module + "/internal/keyring/worker", module + "/internal/keyring/manual",
}

// TestKeyringSurface compares everything that the keyring exports with the list
// that was reviewed: a new verb is a decision about custody.
func TestKeyringSurface(t *testing.T) {
	const golden = "testdata/keyring-surface.txt"
	var lines []string
	for _, p := range loadTypes(t, custodyPackages...) {
		for _, e := range exported(p) {
			lines = append(lines, e.line)
		}
	}
	got := strings.Join(lines, "\n") + "\n"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("the keyring's exported surface is not the reviewed one (-reviewed +found):\n%s\nIf the change is meant: go test ./internal/archtest -run Surface -update, and have the new lines reviewed", diff)
	}
}

// TestNothingReturnsAKey finds every place through which bytes that could be a
// key leave the keyring, or could be held by a noun. Each must be listed, with
// the reason why it is none, or may be one.
func TestNothingReturnsAKey(t *testing.T) {
	const reviewedFile = "testdata/keyring-bytes.txt"
	reviewed := reviewedPlaces(t, reviewedFile)
	for _, p := range loadTypes(t, append(custodyPackages, module)...) {
		for _, e := range exported(p) {
			for _, place := range e.leaks {
				if _, ok := reviewed[place]; !ok {
					t.Errorf("%s can carry a key out: change it, or list it in %s with the reason why it never does", place, reviewedFile)
				}
				delete(reviewed, place)
			}
		}
	}
	for place := range reviewed {
		t.Errorf("%s lists %q, and there is no such place: remove the line", reviewedFile, place)
	}
}

// reviewedPlaces reads lines of the form "place: reason".
func reviewedPlaces(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	places := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		place, reason, ok := strings.Cut(line, ": ")
		if !ok || len(strings.Fields(reason)) < 3 {
			t.Errorf("%s: want \"place: reason\" in %q", file, line)
		}
		places[place] = reason
	}
	return places
}

func loadTypes(t *testing.T, paths ...string) []*types.Package {
	t.Helper()
	if err := dependOnSource(); err != nil {
		t.Fatal(err)
	}
	loaded, err := packages.Load(&packages.Config{Mode: packages.LoadTypes}, paths...)
	if err != nil {
		t.Fatal(err)
	}
	var list []*types.Package
	for _, p := range loaded {
		for _, e := range p.Errors {
			t.Fatal(e)
		}
		list = append(list, p.Types)
	}
	slices.SortFunc(list, func(a, b *types.Package) int { return strings.Compare(a.Path(), b.Path()) })
	return list
}

// export is one exported identifier.
type export struct {
	line string
	// leaks are the places of it through which bytes of a key could come out.
	leaks []string
}

// exported lists every exported function, type, field, method, constant and
// variable of p, in order.
func exported(p *types.Package) (list []export) {
	short := func(other *types.Package) string { return other.Name() }
	add := func(name, kind string, typ types.Type, leaks []string) {
		list = append(list, export{
			line:  fmt.Sprintf("%s: %s %s %s", path.Base(p.Path()), kind, name, types.TypeString(typ, short)),
			leaks: leaks,
		})
	}
	for _, name := range p.Scope().Names() {
		obj := p.Scope().Lookup(name)
		if !obj.Exported() {
			continue
		}
		full := p.Name() + "." + name
		switch obj := obj.(type) {
		case *types.Func:
			add(name, "func", obj.Type(), signatureLeaks(full, obj.Signature()))
		case *types.Var:
			add(name, "var", obj.Type(), valueLeaks(full, obj.Type()))
		case *types.Const:
			add(name, "const", obj.Type(), nil)
		case *types.TypeName:
			if obj.IsAlias() {
				add(name, "alias", types.Unalias(obj.Type()), nil)
				continue // what it stands for is listed under its own name
			}
			add(name, "type", kindOf(obj.Type()), nil)
			for f := range fieldsOf(obj.Type()) {
				add(name+"."+f.Name(), "field", f.Type(), valueLeaks(full+"."+f.Name(), f.Type()))
			}
			for m := range methodsOf(obj.Type()) {
				add(name+"."+m.Name(), "method", m.Type(), signatureLeaks(full+"."+m.Name(), m.Signature()))
			}
		}
	}
	return list
}

// kindOf gives the underlying type without the parts that are listed line by
// line, or not exported.
func kindOf(t types.Type) types.Type {
	switch t.Underlying().(type) {
	case *types.Struct:
		return types.NewStruct(nil, nil)
	case *types.Interface:
		return types.NewInterfaceType(nil, nil)
	}
	return t.Underlying()
}

// fieldsOf yields the exported fields of a struct.
func fieldsOf(t types.Type) func(yield func(*types.Var) bool) {
	return func(yield func(*types.Var) bool) {
		s, ok := t.Underlying().(*types.Struct)
		if !ok {
			return
		}
		for f := range s.Fields() {
			if f.Exported() && !yield(f) {
				return
			}
		}
	}
}

// methodsOf yields the exported methods of t and of a pointer to it, or of an
// interface.
func methodsOf(t types.Type) func(yield func(*types.Func) bool) {
	if !types.IsInterface(t) {
		t = types.NewPointer(t)
	}
	return func(yield func(*types.Func) bool) {
		for s := range types.NewMethodSet(t).Methods() {
			f, ok := s.Obj().(*types.Func)
			if ok && f.Exported() && !yield(f) {
				return
			}
		}
	}
}
