package tlog

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"

	"joinery"
	"joinery/auditlog"

	"golang.org/x/mod/sumdb/tlog"
)

// kept is a Source, and takes what a Builder makes.
type kept struct {
	bundles map[int64]joinery.LogBundle
	tiles   map[[2]int64][]byte
}

func newKept() *kept {
	return &kept{map[int64]joinery.LogBundle{}, map[[2]int64][]byte{}}
}

func (k *kept) take(g joinery.LogGrowth) {
	for _, b := range g.Bundles {
		k.bundles[b.Index] = b
	}
	for _, t := range g.Tiles {
		k.tiles[[2]int64{int64(t.Level), t.Index}] = t.Hashes
	}
}

func (k *kept) Records(i int64) ([]byte, error) {
	b, ok := k.bundles[i]
	if !ok {
		return nil, fmt.Errorf("%w: no bundle %d", ErrDamaged, i)
	}
	return b.Records, nil
}

func (k *kept) Hashes(level int, i int64) ([]byte, error) {
	b, ok := k.tiles[[2]int64{int64(level), i}]
	if !ok {
		return nil, fmt.Errorf("%w: no tile %d of level %d", ErrDamaged, i, level)
	}
	return b, nil
}

func leaf(i int64) joinery.LogLeaf {
	var salt [auditlog.SaltSize]byte
	return joinery.LogLeaf{Ref: joinery.LogRef(i + 1), Record: auditlog.NewRecord(salt, binary.BigEndian.AppendUint64(nil, uint64(i)))}
}

// grow appends leaves up to a size, in batches.
func grow(t testing.TB, k *kept, from, to, batch int64) (root [32]byte) {
	t.Helper()
	for size := from; size < to; {
		b, err := NewBuilder(size, k.bundles[size>>Height], k.Hashes)
		if err != nil {
			t.Fatal(err)
		}
		for end := min(size+batch, to); size < end; size++ {
			b.Add(leaf(size))
		}
		growth, got, r, err := b.Finish()
		if err != nil || got != size {
			t.Fatalf("size %d, want %d: %v", got, size, err)
		}
		k.take(growth)
		root = r
	}
	return root
}

// The tree is that of the go command's own log, whatever the batches were, and
// tiles are those that its client computes.
func TestTreeIsThatOfOthers(t *testing.T) {
	for _, batch := range []int64{1, 3, 255, 256, 257, 70000} {
		t.Run(fmt.Sprint(batch), func(t *testing.T) {
			var stored []tlog.Hash
			reader := tlog.HashReaderFunc(func(indexes []int64) (list []tlog.Hash, err error) {
				for _, i := range indexes {
					list = append(list, stored[i])
				}
				return list, nil
			})
			k, size := newKept(), int64(0)
			sizes := []int64{1, 2, 255, 256, 257, 511, 512, 1000}
			if batch > 255 {
				sizes = append(sizes, 65535, 65536, 65537, 66000)
			}
			for _, to := range sizes {
				root := grow(t, k, size, to, batch)
				for ; size < to; size++ {
					record := leaf(size).Record
					more, err := tlog.StoredHashes(size, record[:], reader)
					if err != nil {
						t.Fatal(err)
					}
					stored = append(stored, more...)
				}
				want, err := tlog.TreeHash(size, reader)
				if err != nil || root != [32]byte(want) {
					t.Fatalf("root of %d leaves is %x, want %x (%v)", size, root, want, err)
				}
				tree := NewTree(size, k)
				if again, err := tree.Root(); err != nil || again != root {
					t.Fatalf("root of %d leaves as read is %x, want %x (%v)", size, again, root, err)
				}
				for _, tile := range tlog.NewTiles(Height, 0, size) {
					want, err := tlog.ReadTileData(tile, reader)
					if err != nil {
						t.Fatal(err)
					}
					got, err := tree.Tile(tile.L, tile.N)
					if err != nil || string(got) != string(want) {
						t.Fatalf("tile %s differs (%v)", tile.Path(), err)
					}
					if w := WidthAt(size, tile.L, tile.N); w != tile.W {
						t.Fatalf("tile %s: width %d", tile.Path(), w)
					}
				}
				proveAll(t, tree, size, want, reader)
			}
		})
	}
}

func proveAll(t *testing.T, tree *Tree, size int64, root tlog.Hash, reader tlog.HashReader) {
	t.Helper()
	for _, i := range []int64{0, size / 3, size - 1} {
		p, err := tree.Inclusion(i)
		if err == nil {
			err = tlog.CheckRecord(p, size, root, i, leaf(i).Record.LeafHash())
		}
		if err != nil {
			t.Fatalf("leaf %d of %d: %v", i, size, err)
		}
	}
	for _, old := range []int64{1, size/2 + 1, size} {
		before, err := tlog.TreeHash(old, reader)
		if err != nil {
			t.Fatal(err)
		}
		p, err := tree.Consistency(old)
		if err == nil {
			err = tlog.CheckTree(p, size, root, old, before)
		}
		if err != nil {
			t.Fatalf("from %d to %d: %v", old, size, err)
		}
	}
}

func TestEmptyTree(t *testing.T) {
	root, err := NewTree(0, newKept()).Root()
	if err != nil || root != sha256.Sum256(nil) {
		t.Fatalf("%x, %v", root, err)
	}
	if _, err := NewBuilder(5, joinery.LogBundle{}, nil); err == nil {
		t.Fatal("a bundle that is missing was not missed")
	}
}

// BenchmarkAdd is what a leaf costs in the tree, in batches as the sequencer makes
// them; what the database costs is not in it.
func BenchmarkAdd(b *testing.B) {
	const batch = 4096
	k, size, l := newKept(), int64(0), leaf(1)
	b.ReportAllocs()
	for b.Loop() {
		builder, err := NewBuilder(size, k.bundles[size>>Height], k.Hashes)
		if err != nil {
			b.Fatal(err)
		}
		for range batch {
			builder.Add(l)
		}
		growth, got, _, err := builder.Finish()
		if err != nil {
			b.Fatal(err)
		}
		k.take(growth)
		size = got
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(size), "ns/leaf")
}
