// Package tlog grows the Merkle tree of the custody log and reads it: tiles of
// 256 hashes, entry bundles of 256 records (c2sp.org/tlog-tiles), over the hashes
// of RFC 6962. It keeps nothing: what it makes is stored by others, and asked of
// them again.
//
// Tiles of level 0 are not stored. They are the leaf hashes of the records in the
// bundle of the same number.
package tlog

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"joinery"
	"joinery/auditlog"

	"golang.org/x/mod/sumdb/tlog"
)

// Height is log2 of how many hashes a tile holds, and Width that number.
const (
	Height = 8
	Width  = 1 << Height
)

// ErrDamaged says that what was read of the tree does not fit together.
var ErrDamaged = errors.New("the tree of the custody log is damaged")

// Source reads what was stored. Absent bundles and tiles are ErrDamaged to who
// asks for them.
type Source interface {
	// Records gives the records of a bundle, 33 bytes each; all there are.
	Records(index int64) ([]byte, error)
	// Hashes gives the hashes of a tile of level 1 and above, 32 bytes each.
	Hashes(level int, index int64) ([]byte, error)
}

// Builder appends leaves to a tree of which it knows the right edge.
type Builder struct {
	size  int64
	refs  []joinery.LogRef // of the last bundle
	last  []byte           // its records
	edge  [][]tlog.Hash    // by level, the hashes of the last tile that is not full
	dirty []bool           // by level: that tile changed
	out   joinery.LogGrowth
}

// NewBuilder begins behind size leaves. last is the last bundle, where it is not
// full; tile gives a tile of level 1 and above.
func NewBuilder(size int64, last joinery.LogBundle, tile func(level int, index int64) ([]byte, error)) (*Builder, error) {
	b := &Builder{size: size}
	have := int(size % Width)
	if len(last.Refs) < have || len(last.Records) < have*auditlog.RecordSize {
		return nil, fmt.Errorf("%w: bundle %d is short", ErrDamaged, size/Width)
	}
	b.refs = append(b.refs, last.Refs[:have]...)
	b.last = append(b.last, last.Records[:have*auditlog.RecordSize]...)
	leaves, err := leafHashes(b.last)
	if err != nil {
		return nil, err
	}
	b.edge, b.dirty = [][]tlog.Hash{leaves}, []bool{false}
	for level, full := 1, size>>Height; full > 0; level, full = level+1, full>>Height {
		var hashes []tlog.Hash
		if n := int(full % Width); n > 0 {
			data, err := tile(level, full>>Height)
			if err != nil {
				return nil, err
			}
			if len(data) < n*tlog.HashSize {
				return nil, fmt.Errorf("%w: tile %d of level %d is short", ErrDamaged, full>>Height, level)
			}
			hashes = split(data[:n*tlog.HashSize])
		}
		b.edge, b.dirty = append(b.edge, hashes), append(b.dirty, false)
	}
	return b, nil
}

// Add appends a leaf.
func (b *Builder) Add(l joinery.LogLeaf) {
	if b.refs == nil {
		b.refs, b.last = make([]joinery.LogRef, 0, Width), make([]byte, 0, Width*auditlog.RecordSize)
	}
	b.refs = append(b.refs, l.Ref)
	b.last = append(b.last, l.Record[:]...)
	b.size++
	b.push(0, l.Record.LeafHash())
}

// push appends a hash to the last tile of a level, and what that tile hashes to
// to the level above once it is full.
func (b *Builder) push(level int, h tlog.Hash) {
	if level == len(b.edge) {
		b.edge, b.dirty = append(b.edge, nil), append(b.dirty, false)
	}
	b.edge[level], b.dirty[level] = append(b.edge[level], h), true
	if len(b.edge[level]) < Width {
		return
	}
	b.emit(level)
	above := subtree(b.edge[level]) // and the tile's memory is free for the next one
	b.edge[level] = b.edge[level][:0]
	b.push(level+1, above)
}

// emit puts the last tile of a level, or the last bundle, into what changed.
func (b *Builder) emit(level int) {
	b.dirty[level] = false
	begun := b.size - 1 // the last leaf
	if level == 0 {
		b.out.Bundles = append(b.out.Bundles, joinery.LogBundle{Index: begun >> Height, Refs: b.refs, Records: b.last})
		b.refs, b.last = nil, nil
		return
	}
	index := b.size >> (Height * level) // hashes of this level, all told
	b.out.Tiles = append(b.out.Tiles, joinery.LogTile{Level: level, Index: (index - 1) >> Height, Hashes: join(b.edge[level])})
}

// Finish gives what changed, and the size and root of the tree now. The Builder
// is over.
func (b *Builder) Finish() (growth joinery.LogGrowth, size int64, root [32]byte, err error) {
	root, err = b.root()
	if err != nil {
		return growth, 0, root, err
	}
	for level := range b.edge {
		if b.dirty[level] && len(b.edge[level]) > 0 {
			b.emit(level)
		}
	}
	return b.out, b.size, root, nil
}

func (b *Builder) root() ([32]byte, error) {
	h, err := tlog.TreeHash(b.size, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			t := tlog.TileForIndex(Height, x)
			if t.L >= len(b.edge) || t.N != b.size>>(Height*(t.L+1)) || t.W > len(b.edge[t.L]) {
				return nil, fmt.Errorf("%w: hash %d is not at its edge", ErrDamaged, x)
			}
			h, err := tlog.HashFromTile(t, join(b.edge[t.L][:t.W]), x)
			if err != nil {
				return nil, err
			}
			hashes[i] = h
		}
		return hashes, nil
	}))
	return h, err
}

// subtree hashes a power of two of hashes, in their place.
func subtree(row []tlog.Hash) tlog.Hash {
	for len(row) > 1 {
		for i := range len(row) / 2 {
			row[i] = tlog.NodeHash(row[2*i], row[2*i+1])
		}
		row = row[:len(row)/2]
	}
	return row[0]
}

func join(hashes []tlog.Hash) []byte {
	b := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		b = append(b, h[:]...)
	}
	return b
}

func split(data []byte) []tlog.Hash {
	hashes := make([]tlog.Hash, len(data)/tlog.HashSize)
	for i := range hashes {
		copy(hashes[i][:], data[i*tlog.HashSize:])
	}
	return hashes
}

func leafHashes(records []byte) ([]tlog.Hash, error) {
	if len(records)%auditlog.RecordSize != 0 {
		return nil, fmt.Errorf("%w: a bundle has %d bytes", ErrDamaged, len(records))
	}
	hashes := make([]tlog.Hash, len(records)/auditlog.RecordSize)
	for i := range hashes {
		hashes[i] = auditlog.Record(records[i*auditlog.RecordSize : (i+1)*auditlog.RecordSize]).LeafHash()
	}
	return hashes, nil
}

// Tree reads a tree of a size. It remembers the tiles that it read, so it is for
// one question or a few that belong together.
type Tree struct {
	size  int64
	from  Source
	tiles map[[2]int64][]byte // by level and index
}

// NewTree reads the first size leaves of what is stored.
func NewTree(size int64, from Source) *Tree {
	return &Tree{size: size, from: from, tiles: map[[2]int64][]byte{}}
}

// Root is the Merkle Tree Hash; that of the empty tree is SHA-256 of nothing.
func (t *Tree) Root() ([32]byte, error) {
	if t.size == 0 {
		return sha256.Sum256(nil), nil
	}
	return tlog.TreeHash(t.size, t)
}

// Inclusion proves that leaf index is in the tree (RFC 6962 §2.1.1).
func (t *Tree) Inclusion(index int64) ([]tlog.Hash, error) {
	return tlog.ProveRecord(t.size, index, t)
}

// Consistency proves that the tree continues its first size leaves (RFC 6962
// §2.1.2).
func (t *Tree) Consistency(size int64) ([]tlog.Hash, error) {
	if size == 0 {
		return nil, nil
	}
	return tlog.ProveTree(t.size, size, t)
}

// ReadHashes implements tlog.HashReader.
func (t *Tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		tile := tlog.TileForIndex(Height, x)
		data, err := t.Tile(tile.L, tile.N)
		if err != nil {
			return nil, err
		}
		if len(data) < tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%w: tile %d of level %d is short", ErrDamaged, tile.N, tile.L)
		}
		if hashes[i], err = tlog.HashFromTile(tile, data[:tile.W*tlog.HashSize], x); err != nil {
			return nil, err
		}
	}
	return hashes, nil
}

// Tile gives the hashes of a tile that are stored, which may be more than this
// tree has.
func (t *Tree) Tile(level int, index int64) ([]byte, error) {
	key := [2]int64{int64(level), index}
	if data, ok := t.tiles[key]; ok {
		return data, nil
	}
	data, err := Tile(t.from, level, index)
	if err == nil {
		t.tiles[key] = data
	}
	return data, err
}

// Tile gives the hashes of any tile: level 0 from records.
func Tile(from Source, level int, index int64) ([]byte, error) {
	if level > 0 {
		return from.Hashes(level, index)
	}
	records, err := from.Records(index)
	if err != nil {
		return nil, err
	}
	hashes, err := leafHashes(records)
	return join(hashes), err
}

// WidthAt is how many hashes a tile has in a tree of a size; 0: there is none.
func WidthAt(size int64, level int, index int64) int {
	n := size>>(Height*level) - index*Width
	return int(min(max(n, 0), Width))
}
