package api_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/api"
	"joinery/internal/provisioning"
)

// Rows are read into memory, for a few requests of an organisation at a time: which of
// its own comes later waits until one of them is done; other routes do not, nor do
// other organisations, however slow these uploads are.
func TestRowsOfFewImportsAreReadAtOnce(t *testing.T) {
	f := start(t)
	path := "/api/v1/imports/" + joinery.NewImportID().String() + "/rows"
	var slow []net.Conn
	for range 3 {
		slow = append(slow, f.beginRows(t, path))
	}
	late := make(chan int, 1)
	go func() { late <- f.send(t, f.keyA, http.MethodPost, path, `{"from":0}`).status }()
	if a := f.send(t, f.keyA, http.MethodGet, "/api/v1/devices", ""); a.status != http.StatusOK {
		t.Errorf("another route meanwhile: %d %s", a.status, a.body)
	}
	if a := f.send(t, f.keyB, http.MethodPost, path, `{"from":0}`); a.status != http.StatusNotFound {
		t.Errorf("another organisation meanwhile: %d %s", a.status, a.body)
	}
	select {
	case status := <-late:
		t.Errorf("a fourth request did not wait: %d", status)
	case <-time.After(200 * time.Millisecond):
	}
	_ = slow[0].Close() // its body breaks off
	select {
	case status := <-late:
		if status != http.StatusNotFound {
			t.Errorf("the fourth request: %d", status)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the fourth request never had its turn")
	}
}

// waitingRows is imports of which every run of rows waits for one before it.
type waitingRows struct {
	api.Imports
	waits   chan struct{}
	release chan struct{}
}

func (w waitingRows) Rows(_ context.Context, _ joinery.Caller, c provisioning.Chunk) ([]joinery.RowResult, joinery.Import, error) {
	c.Checked()
	w.waits <- struct{}{}
	<-w.release
	return nil, joinery.Import{}, joinery.Errorf(joinery.CodeConflict, "the import goes on elsewhere")
}

// Rows that wait for those before them hold no room that these need.
func TestWaitingRowsHoldNoRoom(t *testing.T) {
	const runs = 6
	w := waitingRows{waits: make(chan struct{}), release: make(chan struct{})}
	f := start(t, func(o *api.Options) { o.Imports = w })
	path := "/api/v1/imports/" + joinery.NewImportID().String() + "/rows"
	answers := make(chan int, runs)
	for range runs {
		go func() { answers <- f.send(t, f.keyA, http.MethodPost, path, `{"from":500}`).status }()
	}
	for range runs {
		select {
		case <-w.waits:
		case <-time.After(10 * time.Second):
			t.Fatal("rows that wait keep others out")
		}
	}
	close(w.release)
	for range runs {
		if status := <-answers; status != http.StatusConflict {
			t.Error(status)
		}
	}
}

// beginRows sends a request without its body, and returns when the server reads
// that.
func (f *fixture) beginRows(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	head := "POST " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + f.keyA +
		"\r\nContent-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
	if _, err := conn.Write([]byte(head)); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("%q, %v", line, err)
	}
	return conn
}
