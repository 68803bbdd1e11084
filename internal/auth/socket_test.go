package auth

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"joinery"
)

func TestSocketCallerIsThisUser(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	caller, err := SocketCaller(server)
	if err != nil {
		t.Fatal(err)
	}
	if want := (joinery.Caller{Operator: true, Name: fmt.Sprintf("socket uid %d", os.Geteuid()), Rights: joinery.AllRights(), Socket: true}); caller != want {
		t.Fatalf("caller %+v, want %+v", caller, want)
	}
}

func TestSocketCallerRefusesOtherConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if caller, err := SocketCaller(client); err == nil || caller != (joinery.Caller{}) {
		t.Fatalf("a TCP connection is %+v", caller)
	}
}

func TestClosedSocketIsNobody(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	if caller, err := SocketCaller(client); err == nil || caller.Operator {
		t.Fatalf("a closed socket is %+v", caller)
	}
}

func TestWhichUsersAreTheOperator(t *testing.T) {
	for _, c := range []struct {
		uid, own int
		operator bool
	}{{0, 0, true}, {0, 998, true}, {998, 998, true}, {1000, 998, false}, {1000, 0, false}, {65534, 998, false}} {
		caller, err := callerOfUID(c.uid, c.own)
		if caller.Operator != c.operator || (err == nil) != c.operator {
			t.Errorf("uid %d at a server of uid %d: %+v, %v", c.uid, c.own, caller, err)
		}
		if !c.operator && joinery.CodeOf(err) != joinery.CodeUnauthenticated {
			t.Errorf("uid %d: %v", c.uid, err)
		}
	}
}
