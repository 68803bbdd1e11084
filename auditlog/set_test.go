package auditlog

import (
	"encoding/binary"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// The tree of a set is that of RFC 6962 over its leaves, and what is kept of it and at
// most two blocks of leaves prove any row.
func TestSetTree(t *testing.T) {
	for _, size := range []int64{1, 2, 3, SetBlock - 1, SetBlock, SetBlock + 1, 2 * SetBlock, 5*SetBlock + 7} {
		var tree SetTree
		var leaves [][32]byte
		for row := range size {
			leaf := SetDevice{Nonce: SetNonce([]byte("salt"), row), Device: "dev", DevEUI: string(binary.BigEndian.AppendUint64(nil, uint64(row)))}.Leaf()
			leaves = append(leaves, leaf)
			tree.Add(leaf)
		}
		root, nodes, err := tree.Finish()
		if err != nil {
			t.Fatal(err)
		}
		if want, err := ImportRoot(leaves); err != nil || root != want || int64(len(nodes)) != size/SetBlock*32 {
			t.Errorf("%d leaves: root %x, want %x; %d bytes of nodes; %v", size, root, want, len(nodes), err)
		}
		for row := int64(0); row < size; row += max(1, size/7) {
			read := 0
			proof, err := SetProof(size, row, nodes, func(index int64) ([][32]byte, error) {
				read++
				return leaves[index*SetBlock : min(size, (index+1)*SetBlock)], nil
			})
			if err != nil {
				t.Fatal(err)
			}
			list, ok := hashes(proof)
			if !ok || read > 2 || tlog.CheckRecord(list, size, root, row, tlog.RecordHash(leaves[row][:])) != nil {
				t.Errorf("row %d of %d is not proved, or took %d blocks", row, size, read)
			}
			if tlog.CheckRecord(list, size, root, row, tlog.RecordHash(leaves[(row+1)%size][:])) == nil && size > 1 {
				t.Errorf("row %d of %d proves another leaf", row, size)
			}
		}
		if _, err := SetProof(size, 0, nil, func(int64) ([][32]byte, error) { return nil, nil }); err == nil && size > 1 {
			t.Errorf("%d leaves: a damaged tree is not noticed", size)
		}
	}
}
