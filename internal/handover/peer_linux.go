package handover

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// trusted asks the kernel who is at the other end, and refuses whoever is
// neither root nor the user of this process: sockets, and the word on who a
// relayed request is from, pass between servers that could take each other's keys
// as it is.
func trusted(conn *net.UnixConn) (pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return 0, fmt.Errorf("ask who is at the other end: %w", err)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return 0, fmt.Errorf("the process at the other end runs as user %d: want the server's own, or root", cred.Uid)
	}
	return int(cred.Pid), nil
}
