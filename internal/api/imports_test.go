package api_test

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"joinery"
)

// Rows are read into memory, for a few requests at a time: who comes later waits
// until one of them is done, and other routes do not.
func TestRowsOfFewImportsAreReadAtOnce(t *testing.T) {
	f := start(t)
	path := "/api/v1/imports/" + joinery.NewImportID().String() + "/rows"
	var slow []net.Conn
	for range 4 {
		slow = append(slow, f.beginRows(t, path))
	}
	late := make(chan int, 1)
	go func() { late <- f.send(t, f.keyA, http.MethodPost, path, `{"from":0}`).status }()
	if a := f.send(t, f.keyA, http.MethodGet, "/api/v1/devices", ""); a.status != http.StatusOK {
		t.Errorf("another route meanwhile: %d %s", a.status, a.body)
	}
	select {
	case status := <-late:
		t.Errorf("a fifth request did not wait: %d", status)
	case <-time.After(200 * time.Millisecond):
	}
	_ = slow[0].Close() // its body breaks off
	select {
	case status := <-late:
		if status != http.StatusNotFound {
			t.Errorf("the fifth request: %d", status)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the fifth request never had its turn")
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
