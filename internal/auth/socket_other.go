//go:build !linux

package auth

import (
	"errors"
	"net"
)

// peerUID is known on Linux only; elsewhere the socket needs API keys.
func peerUID(*net.UnixConn) (int, error) {
	return 0, errors.New("the user of a socket's peer is known on Linux only")
}
