package api_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"joinery/auditlog"
	"joinery/client"

	"golang.org/x/mod/sumdb/tlog"
)

// tileClient reads tiles as anybody does, over HTTP and without a credential.
type tileClient struct {
	t    *testing.T
	f    *fixture
	seen int
}

func (c *tileClient) get(path string) (int, string, http.Header) {
	c.t.Helper()
	resp, err := http.Get(c.f.url + path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is read
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

// Height implements tlog.TileReader.
func (c *tileClient) Height() int { return 8 }

// ReadTiles implements tlog.TileReader.
func (c *tileClient) ReadTiles(tiles []tlog.Tile) (data [][]byte, err error) {
	for _, t := range tiles {
		// Its path is /tile/8/L/N…; in c2sp.org/tlog-tiles the height is left out.
		path := "/log/tile/" + strings.TrimPrefix(t.Path(), "tile/8/")
		status, body, h := c.get(path)
		if status != http.StatusOK || !strings.Contains(h.Get("Cache-Control"), "immutable") {
			return nil, fmt.Errorf("%s: %d %s", path, status, body)
		}
		c.seen++
		data = append(data, []byte(body))
	}
	return data, nil
}

// SaveTiles implements tlog.TileReader.
func (c *tileClient) SaveTiles([]tlog.Tile, [][]byte) {}

// Everybody reads tiles and checkpoints, and the client of Go's own checksum
// database verifies them; who has the device gets entries whose records are in
// the bundles that everybody reads.
func TestPublicLog(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	c := f.as(t, f.keyA)
	for n := range 150 {
		if err := c.SuspendDevice(t.Context(), w.device.ID); n%2 == 1 {
			err = c.ResumeDevice(t.Context(), w.device.ID)
			if err != nil {
				t.Fatal(err)
			}
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.db.BeginFeed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.db.Sequence(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := f.publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	reader := &tileClient{t: t, f: f}
	_, text, _ := reader.get("/log/key")
	key, err := auditlog.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	_, signed, h := reader.get("/log/checkpoint")
	checkpoint, _, err := key.Open(signed)
	if err != nil || h.Get("Cache-Control") != "no-cache" || checkpoint.Size < 100 {
		t.Fatal(err, h, checkpoint.Size)
	}
	tree := tlog.TileHashReader(tlog.Tree{N: checkpoint.Size, Hash: tlog.Hash(checkpoint.Root)}, reader)
	if root, err := tlog.TreeHash(checkpoint.Size, tree); err != nil || root != tlog.Hash(checkpoint.Root) {
		t.Fatal(root, err)
	}
	page, err := c.Custody(t.Context(), w.device.ID, client.CustodyQuery{From: 3})
	if err != nil || page.Checkpoint != signed || page.Key != key.String() || len(page.Entries) < 50 || len(page.Consistency) != 1 {
		t.Fatalf("%+v, %v", page, err)
	}
	for _, e := range page.Entries {
		hashes, err := tree.ReadHashes([]int64{tlog.StoredHashIndex(0, e.Leaf)})
		if err != nil || hashes[0] != tlog.RecordHash(e.Record) {
			t.Fatalf("entry %s: %v", e.ID, err)
		}
		width := min(256, checkpoint.Size-e.Leaf/256*256)
		path := fmt.Sprintf("/log/tile/entries/%03d", e.Leaf/256)
		if width < 256 {
			path += fmt.Sprintf(".p/%d", width)
		}
		status, bundle, _ := reader.get(path)
		at := int(e.Leaf%256) * 35
		if status != http.StatusOK || len(bundle) != int(width)*35 || bundle[at:at+35] != "\x00\x21"+string(e.Record) {
			t.Fatalf("%s: %d, %d bytes", path, status, len(bundle))
		}
	}
	if reader.seen == 0 {
		t.Error("no tile was read")
	}
	for _, path := range []string{
		"tile/0/999", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/0", "tile/x/000", "tile/9/000", "tile/00/000", "tile/entries/x000/000",
		"tile/0/x001/000", fmt.Sprintf("tile/0/%03d.p/255", checkpoint.Size/256), "tile/0/-01", "tile/0/x001/x002/x003/x004/x005/006", "other",
	} {
		if status, body, _ := reader.get("/log/" + path); status != http.StatusNotFound {
			t.Errorf("%s: %d %.80s", path, status, body)
		}
	}
}
