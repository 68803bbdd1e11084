package quickstart

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"joinery/internal/config"
	"joinery/internal/daemon"
	"joinery/internal/store"
)

// Options say what to make.
type Options struct {
	// Dir is the directory of the server. It must not exist, or be empty.
	Dir string
	// Port is that of the interop listener; the API and monitoring get the two
	// that follow it. Zero takes three free ones.
	Port int
	// Database is the URL of an empty PostgreSQL database; empty is a SQLite file
	// in Dir.
	Database string
	// Elements is how many the factory makes.
	Elements uint64
	// Report is told each thing that was made, for people; nil is nobody.
	Report func(format string, args ...any)
	// Log is where the server reports while it is prepared; nil is nowhere.
	Log *slog.Logger
}

// ErrPrepared says that the directory holds a quickstart server already.
var ErrPrepared = errors.New("there is a server in this directory already")

// ConfigFile is the name of the configuration in the directory.
const ConfigFile = "joinery.yaml"

// layout names the places in the directory in which a server is made. Its parts
// refer to each other by relative paths, so that the whole can be moved.
type layout struct{ dir string }

func (l layout) path(elements ...string) string {
	return filepath.Join(append([]string{l.dir}, elements...)...)
}

// Prepare makes the server and leaves it stopped. It works in a directory beside
// Dir, which becomes Dir at the end: an interrupted run leaves nothing under
// that name. ErrPrepared where there is one already.
func Prepare(ctx context.Context, o Options) (err error) {
	if o.Report == nil {
		o.Report = func(string, ...any) {}
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return err
	}
	if err := checkFree(o.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.Dir), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(o.Dir), ".quickstart-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	if err := build(ctx, o, layout{work}); err != nil {
		return err
	}
	// An empty directory may stand in the way; one with content does not go.
	if err := os.Remove(o.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(work, o.Dir)
}

// checkFree wants dir to be absent or empty.
func checkFree(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) == 0:
		return nil
	}
	if _, err := os.Lstat(filepath.Join(dir, ConfigFile)); err == nil {
		return fmt.Errorf("%s: %w", dir, ErrPrepared)
	}
	return fmt.Errorf("%s is not empty: name a new directory", dir)
}

// build makes everything inside l, and ends with the server stopped.
func build(ctx context.Context, o Options, l layout) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, dir := range []string{"keys", "pki", "sim"} {
		if err := os.Mkdir(l.path(dir), 0o700); err != nil {
			return err
		}
	}
	// Key files take their time to be sealed: what does not depend on each other
	// is made side by side.
	var server, maker, recipient, pki error
	var making sync.WaitGroup
	making.Go(func() { server = l.makeServerKeys() })
	making.Go(func() { maker = l.makeFactoryKeys() })
	making.Go(func() { recipient, pki = l.makeRecipient(), l.makePKI(time.Now()) })
	making.Wait()
	if err := errors.Join(server, maker, recipient, pki, ctx.Err()); err != nil {
		return err
	}
	if err := l.shareMaster(); err != nil {
		return err
	}
	o.Report("keys: server, custody and factory key files; master key %q shared between factory and server", masterName)
	made, err := l.provision(ctx, o.Elements)
	if err != nil {
		return err
	}
	o.Report("factory: %d elements, their manifest and their silicon", o.Elements)
	c, err := l.writeConfig(o)
	if err != nil {
		return err
	}
	if err := store.Create(ctx, daemon.DatabaseOptions(c)); err != nil {
		return err
	}
	if err := l.register(ctx, c, o.Log, made); err != nil {
		return err
	}
	o.Report("server: JoinEUI ranges, manifest signer, two Network Servers and an Application Server registered over its API")
	return nil
}

// writeConfig writes the server's configuration, with documentation, and gives
// it resolved.
func (l layout) writeConfig(o Options) (config.Config, error) {
	ports, err := choosePorts(o.Port)
	if err != nil {
		return config.Config{}, err
	}
	at := func(i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i])) }
	c := config.Default()
	c.Keys.PassphraseFile = filepath.Join("keys", "server.passphrase")
	c.Interop = config.Interop{
		Address:     at(0),
		Certificate: filepath.Join("pki", "server.crt"),
		Key:         filepath.Join("pki", "server.key"),
	}
	if o.Database != "" {
		c.Database = config.Database{URL: o.Database}
	}
	c.API.Address, c.Ops.Address = at(1), at(2)
	if err := c.Check(); err != nil {
		return config.Config{}, err
	}
	f, err := os.OpenFile(l.path(ConfigFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return config.Config{}, err
	}
	if err := errors.Join(config.Print(f, c), f.Close()); err != nil {
		return config.Config{}, err
	}
	return c.Resolve(l.dir), nil
}

// choosePorts gives three ports: from first on, or free ones where it is zero.
// A free port may be taken by somebody else before the server binds it; then
// the server says so.
func choosePorts(first int) (ports [3]int, err error) {
	if first != 0 {
		for i := range ports {
			ports[i] = first + i
		}
		return ports, nil
	}
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return ports, err
		}
		defer func() { _ = l.Close() }() // only when all three are known
		addr, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			return ports, fmt.Errorf("a TCP listener has address %v", l.Addr())
		}
		ports[i] = addr.Port
	}
	return ports, nil
}

// serveWhile runs the server of c while do works, and stops it again.
func serveWhile(ctx context.Context, c config.Config, log *slog.Logger, do func(context.Context) error) (err error) {
	p, err := daemon.Open(ctx, c, daemon.Options{Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(serving) }()
	err = do(ctx)
	stop()
	return errors.Join(err, <-ended)
}
