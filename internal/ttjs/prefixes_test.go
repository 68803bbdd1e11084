package ttjs_test

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"joinery"
	"joinery/internal/ttjs"
	"joinery/lorawan"
)

func span(first, last uint64) joinery.EUIRange {
	return joinery.EUIRange{First: lorawan.EUI64FromUint64(first), Last: lorawan.EUI64FromUint64(last)}
}

func TestPrefixes(t *testing.T) {
	for _, tc := range []struct {
		ranges []joinery.EUIRange
		want   string
	}{
		{nil, ""},
		{[]joinery.EUIRange{span(0x70B3D57ED0000000, 0x70B3D57ED0000000)}, "70B3D57ED0000000/64"},
		{[]joinery.EUIRange{span(0x70B3D57ED0000000, 0x70B3D57EDFFFFFFF)}, "70B3D57ED0000000/36"},
		{[]joinery.EUIRange{span(0, math.MaxUint64)}, "0000000000000000/0"},
		{[]joinery.EUIRange{span(1, 6)}, "0000000000000001/64 0000000000000002/63 0000000000000004/63 0000000000000006/64"},
		{[]joinery.EUIRange{span(math.MaxUint64, math.MaxUint64)}, "FFFFFFFFFFFFFFFF/64"},
		// Side by side they are one, whosever they are.
		{[]joinery.EUIRange{span(0, 7), span(8, 15)}, "0000000000000000/60"},
		{[]joinery.EUIRange{span(0, 7), span(9, 15)}, "0000000000000000/61 0000000000000009/64 000000000000000A/63 000000000000000C/62"},
	} {
		if got := strings.Join(ttjs.Prefixes(tc.ranges), " "); got != tc.want {
			t.Errorf("%v: %s; want %s", tc.ranges, got, tc.want)
		}
	}
}

// Prefixes cover what they are made of, and nothing else, and no two overlap.
func FuzzPrefixes(f *testing.F) {
	f.Add(uint64(1), uint64(6))
	f.Add(uint64(0), uint64(math.MaxUint64))
	f.Add(uint64(math.MaxUint64-5), uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, first, last uint64) {
		if first > last {
			first, last = last, first
		}
		next, done := first, false
		for _, p := range ttjs.Prefixes([]joinery.EUIRange{span(first, last)}) {
			text, bits, _ := strings.Cut(p, "/")
			eui, err := lorawan.ParseEUI64(text)
			if err != nil {
				t.Fatal(err)
			}
			n, err := strconv.Atoi(bits)
			if err != nil || n < 0 || n > 64 {
				t.Fatal(p)
			}
			if done || eui.Uint64() != next {
				t.Fatalf("%s does not go on at %X", p, next)
			}
			size := uint64(0) // of 2^64 values
			if n > 0 {
				size = 1 << (64 - n)
			}
			next += size
			done = next-1 == last
		}
		if !done {
			t.Fatalf("%X to %X: ends before %X", first, last, next)
		}
	})
}

func TestPrefixesArePublished(t *testing.T) {
	f := start(t)
	got := decode[struct{ JoinEUIPrefixes []string }](t, f.send(t, nil, http.MethodGet, "/api/v2/join-eui-prefixes", ""), 200)
	if !slices.Equal(got.JoinEUIPrefixes, []string{"70B3D57ED0000000/56"}) {
		t.Errorf("%v", got)
	}
	next := span(joinEUI.Uint64()+0x100, joinEUI.Uint64()+0x1FF)
	must[joinery.JoinEUIRange](t)(f.fleet.AssignRange(t.Context(), operator, joinery.JoinEUIRange{EUIRange: next, Org: f.org}))
	got = decode[struct{ JoinEUIPrefixes []string }](t, f.send(t, nil, http.MethodGet, "/api/v2/join-eui-prefixes", ""), 200)
	if fmt.Sprint(got.JoinEUIPrefixes) != "[70B3D57ED0000000/55]" {
		t.Errorf("%v", got)
	}
}
