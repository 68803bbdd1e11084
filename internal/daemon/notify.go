package daemon

import (
	"fmt"
	"net"
	"os"
	"strings"
)

// notify tells the service manager a state such as "READY=1" (sd_notify(3)). It
// does nothing where none listens.
func notify(state string) error {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return nil
	}
	// "@name" is an abstract socket; the kernel wants a zero byte in its place.
	if rest, ok := strings.CutPrefix(address, "@"); ok {
		address = "\x00" + rest
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager %q: %w", state, err)
	}
	_, err = conn.Write([]byte(state))
	_ = conn.Close()
	if err != nil {
		return fmt.Errorf("tell the service manager %q: %w", state, err)
	}
	return nil
}
