package auth

import (
	"errors"
	"fmt"
	"net"
	"os"

	"joinery"
)

// SocketCaller tells who is at the other end of a connection to the operator
// socket: the operator, if that process runs as root or as the user of this
// one; nobody else (joinery.CodeUnauthenticated), though an API key may still
// tell who they are. The kernel vouches for the user of a Unix socket's peer,
// as of the moment of its connect.
func SocketCaller(conn net.Conn) (joinery.Caller, error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return joinery.Caller{}, joinery.WrapError(joinery.CodeInternal, errors.New("not a Unix socket"), "internal error")
	}
	uid, err := peerUID(c)
	if err != nil {
		return joinery.Caller{}, joinery.WrapError(joinery.CodeInternal, err, "internal error")
	}
	return callerOfUID(uid, os.Geteuid())
}

// callerOfUID is the rule of SocketCaller.
func callerOfUID(uid, own int) (joinery.Caller, error) {
	if uid != 0 && uid != own {
		return joinery.Caller{}, joinery.Errorf(joinery.CodeUnauthenticated,
			"on this socket root and the server's own user need no credential; others need an API key")
	}
	return joinery.Caller{Operator: true, Name: fmt.Sprintf("socket uid %d", uid), Rights: joinery.AllRights(), Socket: true}, nil
}
