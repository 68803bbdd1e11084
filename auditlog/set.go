package auditlog

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// Set shows that a device is one of those for which something was ordered at once,
// such as an export: the entries about the order commit to all of them by the root of
// a tree (RFC 6962), "set" in their detail, whose leaves are as many as "devices"
// says. See SetDevice.
type Set struct {
	Of  string `json:"of"`  // the order: "exp_…" or "rkb_…"
	Row int64  `json:"row"` // of the device among the leaves, from 0
	// JoinEUI is the device's when it came into the set.
	JoinEUI string   `json:"joinEUI"`
	Nonce   []byte   `json:"nonce"` // 16 bytes
	Proof   [][]byte `json:"proof"` // RFC 6962 §2.1.1, from the leaf to "set"
}

// SetDevice is a device as the root of its set commits to it.
type SetDevice struct {
	Nonce           []byte // 16 bytes, hides the rest from the owners of the other devices
	Device          string
	JoinEUI, DevEUI string // 16 upper-case hexadecimal digits
}

// Leaf is SHA-256 over a line for each field. It is the leaf's content in the sense
// of RFC 6962.
func (d SetDevice) Leaf() [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "joinery device of a set 1\n%x\n%s\n%s\n%s\n", d.Nonce, d.Device, d.JoinEUI, d.DevEUI))
}

// SetNonce makes the nonce of a row of a set from what hides the whole set, 32 random
// bytes that never leave the server.
func SetNonce(salt []byte, row int64) []byte {
	b := append([]byte("joinery set nonce 1\n"), salt...)
	h := sha256.Sum256(binary.BigEndian.AppendUint64(b, uint64(row)))
	return h[:setNonceLen]
}

// setNonceLen is the length of a nonce, in bytes.
const setNonceLen = 16

// SetBlock is how many leaves of a set's tree a node stands for that is kept: so a
// proof takes few of a large set's devices to make.
const SetBlock = 1 << setBlockLevel

const setBlockLevel = 8

// SetTree grows the tree of a set.
type SetTree struct {
	size  int64
	last  [][sha256.Size]byte // the leaves of the last block, which is not full
	nodes []byte
}

// Add appends a leaf.
func (t *SetTree) Add(leaf [sha256.Size]byte) {
	t.size++
	if t.last = append(t.last, leaf); len(t.last) == SetBlock {
		h := hashBlock(t.last)
		t.nodes, t.last = append(t.nodes, h[:]...), t.last[:0]
	}
}

// Finish gives the root, and the hashes of all full blocks, 32 bytes each.
func (t *SetTree) Finish() (root [sha256.Size]byte, nodes []byte, err error) {
	r := &setReader{nodes: t.nodes, block: func(int64) ([][sha256.Size]byte, error) { return t.last, nil }}
	h, err := tlog.TreeHash(t.size, r)
	return h, t.nodes, err
}

// SetProof proves that a row is one of size. nodes are those of SetTree.Finish; block
// gives the leaves of a block.
func SetProof(size, row int64, nodes []byte, block func(index int64) ([][sha256.Size]byte, error)) (proof [][]byte, err error) {
	hashes, err := tlog.ProveRecord(size, row, &setReader{nodes: nodes, block: block})
	for _, h := range hashes {
		proof = append(proof, h[:])
	}
	return proof, err
}

// setReader reads the tree of a set from the nodes that are kept, and from leaves.
type setReader struct {
	nodes []byte
	block func(index int64) ([][sha256.Size]byte, error)
	read  map[int64][][sha256.Size]byte
}

// ReadHashes implements tlog.HashReader.
func (r *setReader) ReadHashes(indexes []int64) (list []tlog.Hash, err error) {
	for _, i := range indexes {
		level, n := tlog.SplitStoredHashIndex(i)
		h, err := r.hash(level, n)
		if err != nil {
			return nil, err
		}
		list = append(list, h)
	}
	return list, nil
}

func (r *setReader) hash(level int, n int64) (h tlog.Hash, err error) {
	switch {
	case level > setBlockLevel:
		left, err := r.hash(level-1, 2*n)
		if err != nil {
			return h, err
		}
		right, err := r.hash(level-1, 2*n+1)
		return tlog.NodeHash(left, right), err
	case level == setBlockLevel:
		if (n+1)*tlog.HashSize > int64(len(r.nodes)) {
			return h, fmt.Errorf("the tree of a set has no block %d", n)
		}
		copy(h[:], r.nodes[n*tlog.HashSize:])
		return h, nil
	}
	index := n >> (setBlockLevel - level)
	leaves, ok := r.read[index]
	if !ok {
		if leaves, err = r.block(index); err != nil {
			return h, err
		}
		if r.read == nil {
			r.read = map[int64][][sha256.Size]byte{}
		}
		r.read[index] = leaves
	}
	first := n<<level - index*SetBlock
	if first+1<<level > int64(len(leaves)) {
		return h, fmt.Errorf("block %d of a set has %d leaves", index, len(leaves))
	}
	return hashBlock(leaves[first : first+1<<level]), nil
}

// hashBlock hashes a power of two of leaves.
func hashBlock(leaves [][sha256.Size]byte) tlog.Hash {
	row := make([]tlog.Hash, len(leaves))
	for i, leaf := range leaves {
		row[i] = tlog.RecordHash(leaf[:])
	}
	for len(row) > 1 {
		for i := range len(row) / 2 {
			row[i] = tlog.NodeHash(row[2*i], row[2*i+1])
		}
		row = row[:len(row)/2]
	}
	return row[0]
}

// proves tells whether s proves that the bundle's device is in the set to which an
// event commits.
func (v *verifier) proves(s Set, p Event) bool {
	size, err1 := strconv.ParseInt(p.Detail["devices"], 10, 64)
	root, err2 := hex.DecodeString(p.Detail["set"])
	leaf := SetDevice{Nonce: s.Nonce, Device: v.b.Device, JoinEUI: s.JoinEUI, DevEUI: v.b.DevEUI}.Leaf()
	proof, ok := hashes(s.Proof)
	return err1 == nil && err2 == nil && len(root) == sha256.Size && len(s.Nonce) == setNonceLen && ok && s.Row >= 0 && s.Row < size &&
		tlog.CheckRecord(proof, size, tlog.Hash(root), s.Row, tlog.RecordHash(leaf[:])) == nil
}
