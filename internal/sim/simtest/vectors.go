// Package simtest has what the tests of the simulator share: the project's
// vectors, read for this side of the house.
package simtest

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"joinery/lorawan"
)

// Vector is one known answer of a file in testdata/vectors; README.md beside it
// explains the members.
type Vector struct {
	Name            string         `json:"name"`
	Op              string         `json:"op"`
	Inputs          map[string]any `json:"inputs"`
	Expected        map[string]any `json:"expected"`
	Status          string         `json:"status"`
	ComputedPerSpec map[string]any `json:"computed_per_spec"`
}

// Vectors gives the vectors of the given operations; none at all fails the test.
func Vectors(t testing.TB, ops ...string) []Vector {
	t.Helper()
	var all, picked []Vector
	for _, name := range []string{"lorawan.json", "rekey.json"} {
		b, err := os.ReadFile(filepath.Join(moduleRoot(t), "testdata", "vectors", name))
		if err != nil {
			t.Fatal(err)
		}
		var list []Vector
		if err := json.Unmarshal(b, &list); err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
	}
	for _, op := range ops {
		before := len(picked)
		for _, v := range all {
			if v.Op == op {
				picked = append(picked, v)
			}
		}
		if len(picked) == before {
			t.Fatalf("no vector has op %s", op)
		}
	}
	return picked
}

// moduleRoot is the directory with go.mod, above the one of the test.
func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = parent
	}
}

// Has tells whether the vector has an input of that name.
func (v Vector) Has(name string) bool { _, ok := v.Inputs[name]; return ok }

// In gives an input as bytes.
func (v Vector) In(t testing.TB, name string) []byte { t.Helper(); return Bytes(t, v.Inputs, name) }

// Out gives an expected value as bytes.
func (v Vector) Out(t testing.TB, name string) []byte { t.Helper(); return Bytes(t, v.Expected, name) }

// Bytes decodes a member that is hexadecimal.
func Bytes(t testing.TB, members map[string]any, name string) []byte {
	t.Helper()
	s, ok := members[name].(string)
	if !ok {
		t.Fatalf("%s is not there as text", name)
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// Number gives an input as a number, from hexadecimal or from JSON's own.
func (v Vector) Number(t testing.TB, name string) uint32 {
	t.Helper()
	if f, ok := v.Inputs[name].(float64); ok {
		return uint32(f)
	}
	n := uint32(0)
	for _, b := range v.In(t, name) {
		n = n<<8 | uint32(b)
	}
	return n
}

// EUI gives an input as an EUI-64.
func (v Vector) EUI(t testing.TB, name string) lorawan.EUI64 {
	t.Helper()
	return lorawan.EUI64(v.In(t, name))
}

// Accept gives the fields of a join-accept from the inputs.
func (v Vector) Accept(t testing.TB) lorawan.JoinAccept {
	t.Helper()
	cfList, err := lorawan.ParseCFList(v.In(t, "CFList_wire"))
	if err != nil {
		t.Fatal(err)
	}
	return lorawan.JoinAccept{
		JoinNonce: lorawan.JoinNonce(v.Number(t, "JoinNonce")), NetID: lorawan.NetID(v.In(t, "NetID")),
		DevAddr: lorawan.DevAddr(v.In(t, "DevAddr")), DLSettings: lorawan.DLSettings(v.Number(t, "DLSettings")),
		RxDelay: uint8(v.Number(t, "RxDelay")), CFList: cfList,
	}
}
