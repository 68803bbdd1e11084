package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"joinery/internal/backup"
	"joinery/internal/config"
	"joinery/internal/store/storetest/pgtest"
)

// The scripts in testdata/script run this program as people and service managers
// do.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"joinery": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"certificate": certificate,
			"mode":        mode,
			"schema":      schema,
			"sql":         sql,
			"ready":       ready,
			"nosecret":    noSecret,
			"exits":       exits,
			"answers":     answers,
			"recipient":   recipient,
		},
	})
}

// TestScriptsOnPostgres runs scripts with an empty database in a PostgreSQL that
// syncs.
func TestScriptsOnPostgres(t *testing.T) {
	pg := pgtest.Start(t, pgtest.Options{Sync: true})
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/postgres",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			if err := setup(e); err != nil {
				return err
			}
			f, err := os.OpenFile(filepath.Join(e.WorkDir, "joinery.yaml"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(f, "database: {url: %q}\n", pg.Database(t))
			return errors.Join(err, f.Close())
		},
	})
}

// setup gives each script a configuration with free ports, in joinery.yaml, and
// none of the environment's settings.
func setup(e *testscript.Env) error {
	e.Setenv("JOINERY_CONFIG", "")
	e.Setenv("CREDENTIALS_DIRECTORY", "")
	e.Setenv("NOTIFY_SOCKET", "")
	text := "interop: {address: %q, certificate: server.crt, key: server.key}\n" +
		"api: {address: %q}\nops: {address: %q}\nkeys: {identity_file: server.identity}\n"
	var addresses []any
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }()
		addresses = append(addresses, l.Addr().String())
	}
	return os.WriteFile(filepath.Join(e.WorkDir, "joinery.yaml"), fmt.Appendf(nil, text, addresses...), 0o600)
}

// certificate makes server.crt and server.key.
func certificate(ts *testscript.TestScript, _ bool, _ []string) {
	cert, key, err := selfSigned()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("server.crt"), cert, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("server.key"), key, 0o600))
}

// mode MODE FILE… wants files to have a mode.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	for _, file := range args[1:] {
		info, err := os.Stat(ts.MkAbs(file))
		ts.Check(err)
		if (info.Mode().Perm() == os.FileMode(want)) == neg {
			ts.Fatalf("%s has mode %04o", file, info.Mode().Perm())
		}
	}
}

// schema N FILE writes N over the version of a database's schema: bytes 60 to 63
// of an SQLite file.
func schema(ts *testscript.TestScript, _ bool, args []string) {
	version, err := strconv.ParseUint(args[0], 10, 32)
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[1]), os.O_RDWR, 0)
	ts.Check(err)
	_, err = f.WriteAt(binary.BigEndian.AppendUint32(nil, uint32(version)), 60)
	ts.Check(err)
	ts.Check(f.Close())
}

// sql FILE STATEMENT changes a database behind the program's back.
func sql(ts *testscript.TestScript, _ bool, args []string) {
	c, err := sqlite.OpenConn(ts.MkAbs(args[0]), sqlite.OpenReadWrite)
	ts.Check(err)
	ts.Check(sqlitex.ExecuteTransient(c, args[1], nil))
	ts.Check(c.Close())
}

// ready CONFIG waits until the server of a configuration is ready.
func ready(ts *testscript.TestScript, _ bool, args []string) {
	c, err := config.Load(ts.MkAbs(args[0]))
	ts.Check(err)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		res, err := http.Get("http://" + c.Ops.Address + "/readyz")
		if err != nil {
			continue
		}
		_ = res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return
		}
	}
	ts.Fatalf("the server is not ready after 30s")
}

// answers CONFIG PATH STATUS TEXT waits until the monitoring listener of a
// configuration answers, and looks at what it says.
func answers(ts *testscript.TestScript, _ bool, args []string) {
	c, err := config.Load(ts.MkAbs(args[0]))
	ts.Check(err)
	status, err := strconv.Atoi(args[2])
	ts.Check(err)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		res, err := http.Get("http://" + c.Ops.Address + args[1])
		if err != nil {
			continue
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		ts.Check(err)
		if res.StatusCode != status || !strings.Contains(string(body), args[3]) {
			ts.Fatalf("%s: %d %s", args[1], res.StatusCode, body)
		}
		return
	}
	ts.Fatalf("%s does not answer after 30s", args[1])
}

// recipient IDENTITY FILE writes the recipient of an identity to a file.
func recipient(ts *testscript.TestScript, _ bool, args []string) {
	text, err := backup.RecipientOf(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text+"\n"), 0o600))
}

// nosecret FILE fails if the first line of FILE, a passphrase, or an age
// identity in it is in what the last command printed.
func noSecret(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	line, _, _ := strings.Cut(text, "\n")
	if identity := regexp.MustCompile(`AGE-SECRET-KEY-\S+`).FindString(text); identity != "" {
		line = identity
	}
	if line == "" {
		ts.Fatalf("%s is empty", args[0])
	}
	for _, out := range []string{"stdout", "stderr"} {
		if strings.Contains(ts.ReadFile(out), line) {
			ts.Fatalf("%s repeats the secret of %s", out, args[0])
		}
	}
}

// exits CODE ARG… runs joinery and wants an exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec("joinery", args[1:]...); err != nil {
		exit, ok := err.(*exec.ExitError) //nolint:errorlint // as Exec gives it
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}
