package ttjs

import (
	"fmt"
	"math/bits"
	"net/http"

	"joinery"
	"joinery/lorawan"
)

// prefixList is the answer of listPrefixes.
type prefixList struct {
	JoinEUIPrefixes []string `json:"joinEUIPrefixes"`
}

// listPrefixes tells anybody which JoinEUIs this server answers for, as clients
// are configured with them: GET /join-eui-prefixes.
func (s *Server) listPrefixes(w http.ResponseWriter, r *http.Request) {
	served, err := s.Devices.Served(r.Context())
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, prefixList{Prefixes(served)})
}

// Prefixes writes ranges, which are in order and do not overlap, as prefixes:
// "70B3D57ED0000000/36" is the JoinEUIs that begin with these 36 bits, and /64 is
// one of them. They are the fewest that do and do not overlap either: a client
// with prefixes that do asks any of the servers that they lead to.
func Prefixes(ranges []joinery.EUIRange) []string {
	prefixes := []string{}
	for i := 0; i < len(ranges); i++ {
		first, last := ranges[i].First.Uint64(), ranges[i].Last.Uint64()
		// Ranges side by side are one.
		for i+1 < len(ranges) && last+1 == ranges[i+1].First.Uint64() && last+1 != 0 {
			i++
			last = ranges[i].Last.Uint64()
		}
		prefixes = appendPrefixes(prefixes, first, last)
	}
	return prefixes
}

// appendPrefixes cuts [first, last] into the largest blocks whose size is a power
// of two and divides their beginning.
func appendPrefixes(prefixes []string, first, last uint64) []string {
	for {
		free := 64 // bits behind the prefix
		if first != 0 {
			free = bits.TrailingZeros64(first)
		}
		for free > 0 && blockEnd(first, free) > last {
			free--
		}
		prefixes = append(prefixes, fmt.Sprintf("%s/%d", lorawan.EUI64FromUint64(first), 64-free))
		end := blockEnd(first, free)
		if end >= last {
			return prefixes
		}
		first = end + 1
	}
}

// blockEnd is the last value of the block of 2^free values that begins at first.
func blockEnd(first uint64, free int) uint64 {
	if free == 64 {
		return ^uint64(0)
	}
	return first + (1<<free - 1)
}
