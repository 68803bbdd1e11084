package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"joinery/internal/activation"
)

// While a request is answered nobody reads of its connection; what the client sends
// meanwhile is the next request, and a client that goes away leaves nothing behind.
func TestNobodyLooksOut(t *testing.T) {
	arrived, answer := make(chan struct{}, 8), make(chan struct{})
	h := openHouse(t)
	h.joins.join = func(ctx context.Context, _ activation.JoinRequest) (activation.JoinAnswer, error) {
		arrived <- struct{}{}
		<-answer
		return activation.JoinAnswer{PHYPayload: make([]byte, 17)}, ctx.Err()
	}
	request := fmt.Sprintf("POST / HTTP/1.1\r\nHost: js\r\nContent-Length: %d\r\n\r\n%s", len(joinReq10), joinReq10)
	dial := func() *tls.Conn {
		t.Helper()
		conn, err := tls.Dial("tcp", h.addr, h.tlsConfig(h.ns))
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	send := func(conn io.Writer, text string) {
		t.Helper()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
	}
	stays, leaves := dial(), dial()
	defer func() { _ = stays.Close() }()
	send(stays, request)
	send(leaves, request)
	<-arrived
	<-arrived
	send(stays, request+request)
	_ = leaves.Close()
	close(answer)
	read := bufio.NewReader(stays)
	for i := range 3 {
		_ = stays.SetReadDeadline(time.Now().Add(10 * time.Second))
		resp, err := http.ReadResponse(read, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "Success") {
			t.Errorf("answer %d: %d %s %v", i, resp.StatusCode, body, err)
		}
	}
	_ = stays.Close()
	for end := time.Now().Add(10 * time.Second); h.Connections() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections are left", h.Connections())
		}
	}
}
