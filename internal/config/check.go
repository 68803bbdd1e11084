package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// maxSocketPath is the longest path of a Unix socket that the kernel takes
// (unix(7), sun_path without its final zero).
const maxSocketPath = 107

// Check judges every value and opens nothing. All that is wrong is told at once.
func (c Config) Check() error {
	return errors.Join(
		c.Database.Check(),
		c.Keys.check(),
		required("interop.address", c.Interop.Address),
		address("interop.address", c.Interop.Address),
		required("interop.certificate", c.Interop.Certificate),
		required("interop.key", c.Interop.Key),
		required("api.socket", c.API.Socket),
		address("api.address", c.API.Address),
		loopback("api.address", c.API.Address),
		address("api.tls.address", c.API.TLS.Address),
		c.API.TLS.check(),
		c.API.checkProxies(),
		c.SignIn.check(),
		address("ops.address", c.Ops.Address),
		c.distinctAddresses(),
		c.Limits.check(),
		c.Webhooks.check(),
		c.Export.check(c.Keys),
		c.Audit.check(),
		oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error"),
		oneOf("log.format", c.Log.Format, "text", "json"),
	)
}

func (l Limits) check() error {
	return errors.Join(
		between("limits.body_bytes", l.BodyBytes, 2048, 32<<10),
		between("limits.connections", l.Connections, 1, 1<<20),
		timeBetween("limits.request_timeout", l.RequestTimeout, 100*time.Millisecond, 10*time.Minute),
		timeBetween("limits.answer_timeout", l.AnswerTimeout, 100*time.Millisecond, time.Minute),
		timeBetween("limits.idle_timeout", l.IdleTimeout, time.Second, time.Hour),
		timeBetween("limits.drain_delay", l.DrainDelay, 0, 10*time.Minute),
		timeBetween("limits.drain_timeout", l.DrainTimeout, 0, 10*time.Minute),
	)
}

// distinctAddresses finds two listeners configured on one address and port.
func (c Config) distinctAddresses() error {
	seen := map[string]string{}
	var found []error
	for _, l := range []struct{ name, address string }{
		{"interop.address", c.Interop.Address}, {"api.address", c.API.Address},
		{"api.tls.address", c.API.TLS.Address}, {"ops.address", c.Ops.Address},
	} {
		_, port, err := net.SplitHostPort(l.address)
		if err != nil || port == "0" {
			continue
		}
		if other, ok := seen[l.address]; ok {
			found = append(found, wrong(l.name, "is the same as %s: give each listener a port of its own", other))
		}
		seen[l.address] = l.name
	}
	return errors.Join(found...)
}

// CheckFiles judges what the configuration names, after Resolve: that files are
// there and readable by their owner alone where they are secret, that the
// certificate belongs to its key and is valid now, and that the socket's path is
// short enough. It reads the TLS key, and no other secret.
func (c Config) CheckFiles(now time.Time) error {
	return errors.Join(
		exists("database.path", c.Database.Path, "make it with `joinery migrate --create`"),
		secretFile("database.password_file", c.Database.PasswordFile, ""),
		c.Keys.checkFiles(),
		c.SignIn.OIDC.CheckSecret(),
		c.Interop.pair().Check(now),
		c.API.TLS.checkPair(now),
		c.API.CheckSocket(),
		exists("webhooks.ca_file", c.Webhooks.CAFile, ""),
	)
}

// CheckSocket tells when the path of the socket is too long to bind, or that of
// the one beside it.
func (a API) CheckSocket() error {
	const longest = maxSocketPath - len(handoverSuffix)
	if n := len(a.Socket); n > longest {
		return wrong("api.socket", "the path has %d characters with its directory, and at most %d can be had: choose a shorter one, such as /run/joinery/joinery.sock", n, longest)
	}
	return nil
}

// handoverSuffix makes the path of the socket on which a successor asks for the
// work.
const handoverSuffix = ".next"

// HandoverSocket is where a successor finds the running server: beside the
// operator socket.
func (a API) HandoverSocket() string { return a.Socket + handoverSuffix }

// wrong is an error about one key.
func wrong(name, format string, args ...any) error {
	return fmt.Errorf("  %s: "+format, append([]any{name}, args...)...)
}

func required(name, value string) error {
	if value == "" {
		return wrong(name, "is missing")
	}
	return nil
}

// address wants host:port; the host may be empty or a literal address or a name.
func address(name, value string) error {
	if value == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return wrong(name, "want host:port, such as 127.0.0.1:8444 or :8443")
	}
	return nil
}

// loopback wants a host that only this machine reaches.
func loopback(name, value string) error {
	host, _, err := net.SplitHostPort(value)
	if err != nil || host == "localhost" {
		return nil
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		return nil
	}
	return wrong(name, "want a loopback address, such as 127.0.0.1:8444: this listener speaks plain HTTP; put a TLS proxy in front of it for other machines")
}

func oneOf(name, value string, known ...string) error {
	if !slices.Contains(known, value) {
		return wrong(name, "want one of %s", strings.Join(known, ", "))
	}
	return nil
}

func between(name string, value, least, most int) error {
	if value < least || value > most {
		return wrong(name, "is %d: want %d to %d", value, least, most)
	}
	return nil
}

func timeBetween(name string, value, least, most time.Duration) error {
	if value < least || value > most {
		return wrong(name, "is %s: want %s to %s", shortDuration(value), shortDuration(least), shortDuration(most))
	}
	return nil
}

func exists(name, path, hint string) error {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return wrong(name, "%s does not exist%s", path, hinted(hint))
	case err != nil:
		return wrong(name, "%w", err)
	case !info.Mode().IsRegular():
		return wrong(name, "%s is not a regular file", path)
	}
	return nil
}

// secretFile wants a file that nobody but its owner can read.
func secretFile(name, path, hint string) error {
	if err := exists(name, path, hint); err != nil || path == "" {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return wrong(name, "%w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return wrong(name, "%s has mode %04o, others can read it: chmod 600 %s", path, mode, path)
	}
	return nil
}

// program wants a program that can be run, and that only its owner can change.
func program(name, path string) error {
	if err := exists(name, path, ""); err != nil || path == "" {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return wrong(name, "%w", err)
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular() || mode.Perm()&0o111 == 0:
		return wrong(name, "%s is no program: chmod 700 %s", path, path)
	case mode.Perm()&0o022 != 0:
		return wrong(name, "%s has mode %04o, others can change what it does: chmod go-w %s", path, mode.Perm(), path)
	}
	return nil
}

func hinted(hint string) string {
	if hint == "" {
		return ""
	}
	return ": " + hint
}
