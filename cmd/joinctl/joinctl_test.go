package main

import (
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"joinery/internal/config"
	"joinery/internal/daemon"
	"joinery/internal/quickstart"
	"joinery/internal/sim/command"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"joinctl": main, "joinsim": simulate})
}

// simulate is joinsim, for scripts in which devices join.
func simulate() {
	if err := command.New().ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "joinsim:", err)
		os.Exit(1)
	}
}

// server is the real server that all scripts speak to, made as a newcomer makes
// one.
type server struct {
	dir    string
	config config.Config
}

func startServer(t *testing.T) server {
	t.Helper()
	return startServerWith(t, func(*config.Config) {})
}

// startServerWith starts a server whose configuration was changed.
func startServerWith(t *testing.T, change func(*config.Config)) server {
	t.Helper()
	return startServerAt(t, change, nil)
}

// startServerAt starts one with a clock of its own; nil is the system's.
func startServerAt(t *testing.T, change func(*config.Config), now func() time.Time) server {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "qs")
	if err := quickstart.Prepare(t.Context(), quickstart.Options{Dir: dir, Elements: 3}); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(filepath.Join(dir, quickstart.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	change(&c)
	p, err := daemon.Open(t.Context(), c, daemon.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Errorf("server: %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
		if err := p.Close(); err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return server{dir, c}
}

func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	alone := append(slices.Clone(rangeScripts), labelScript, serviceScript)
	runScripts(t, slices.DeleteFunc(files, func(file string) bool { return slices.Contains(alone, file) })...)
}

// labelScript compares the audit log of before with that of after.
var labelScript = filepath.Join("testdata", "script", "labels.txtar")

func TestScriptOfLabels(t *testing.T) { runScripts(t, labelScript) }

// rangeScripts assign ranges and pin signers. With those a server begins imports
// anew whose rows were refused, which another script may be about.
var rangeScripts = []string{
	filepath.Join("testdata", "script", "json.txtar"), filepath.Join("testdata", "script", "ranges.txtar"),
}

func TestScriptsOfRanges(t *testing.T) { runScripts(t, rangeScripts...) }

// serviceScript sets the clock of its server.
var serviceScript = filepath.Join("testdata", "script", "service.txtar")

// A service lapses, is explained and extended. The clock command sets the server's
// clock forward, which the server takes for what it is: a step.
func TestScriptOfService(t *testing.T) {
	var ahead atomic.Int64
	s := startServerAt(t, func(*config.Config) {}, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	runScriptsOn(t, s, map[string]func(*testscript.TestScript, bool, []string){
		"clock": func(ts *testscript.TestScript, _ bool, args []string) {
			d, err := time.ParseDuration(args[0])
			ts.Check(err)
			ahead.Store(int64(d))
		},
	}, serviceScript)
}

// runScripts runs scripts at once on a server of their own.
func runScripts(t *testing.T, files ...string) {
	t.Helper()
	runScriptsOn(t, startServer(t), nil, files...)
}

// runScriptsOn runs scripts on a server, with more commands.
func runScriptsOn(t *testing.T, s server, more map[string]func(*testscript.TestScript, bool, []string), files ...string) {
	t.Helper()
	commands := map[string]func(*testscript.TestScript, bool, []string){
		"json": jsonCommand, "setjson": setJSONCommand, "keylist": keyListCommand, "devices": devicesCommand, "exitcode": exitCodeCommand,
		"scan": scanCommand, "page": pageCommand, "eventually": eventuallyCommand,
	}
	maps.Copy(commands, more)
	testscript.Run(t, testscript.Params{
		Files:               files,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("JOINCTL_SOCKET", s.config.API.Socket)
			env.Setenv("QS", s.dir)
			env.Setenv("API_URL", "http://"+s.config.API.Address)
			env.Setenv("INTEROP_URL", "https://"+s.config.Interop.Address)
			env.Setenv("TZ", "UTC")
			env.Setenv("NEXT_MONTH", time.Now().AddDate(0, 0, 30).UTC().Format(time.DateOnly))
			return nil
		},
		Cmds: commands,
	})
}

// jsonCommand: json FILE PATH WANT: what stands at PATH (a.b, 0 for the first
// of an array, len for a length) in FILE is WANT.
func jsonCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: json FILE PATH WANT")
	}
	got, err := lookUp(ts.ReadFile(args[0]), args[1])
	ts.Check(err)
	if (got == args[2]) == neg {
		ts.Fatalf("%s is %q, want %q", args[1], got, args[2])
	}
}

// setJSONCommand: setjson VAR FILE PATH: sets a variable to what stands there.
func setJSONCommand(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: setjson VAR FILE PATH")
	}
	got, err := lookUp(ts.ReadFile(args[1]), args[2])
	ts.Check(err)
	ts.Setenv(args[0], got)
}

func lookUp(text, path string) (string, error) {
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return "", fmt.Errorf("%w in %s", err, text)
	}
	for _, step := range strings.Split(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			member, ok := at[step]
			if !ok {
				return "", fmt.Errorf("no %s in %s", path, text)
			}
			v = member
		case []any:
			if step == "len" {
				v = len(at)
				continue
			}
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(at) {
				return "", fmt.Errorf("no %s in %s", path, text)
			}
			v = at[i]
		default:
			return "", fmt.Errorf("no %s in %s", path, text)
		}
	}
	return fmt.Sprint(v), nil
}

// keyListCommand: keylist FILE FIRST COUNT [BAD…]: writes a key list of COUNT
// devices from DevEUI FIRST on; the rows BAD (from 0) have a key that is none.
func keyListCommand(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: keylist FILE FIRST COUNT [BAD…]")
	}
	first, err := strconv.ParseUint(args[1], 16, 64)
	ts.Check(err)
	count, err := strconv.Atoi(args[2])
	ts.Check(err)
	var b strings.Builder
	b.WriteString("JoinEUI,DevEUI,MACVersion,NwkKey,AppKey\n")
	for i := range count {
		key := fmt.Sprintf("%032X", first*7919+uint64(i)+1)
		if slices.Contains(args[3:], strconv.Itoa(i)) {
			key = "NOT-A-KEY-" + key[:8]
		}
		fmt.Fprintf(&b, "0200000000000100,%016X,1.0.4,,%s\n", first+uint64(i), key)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b.String()), 0o600))
}

// pageCommand: page NAME OUT: writes the commands of docs/NAME.md, in their
// order, as one shell script.
func pageCommand(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: page NAME OUT")
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", args[0]+".md"))
	ts.Check(err)
	script := "set -eux\n"
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllSubmatch(page, -1) {
		script += string(block[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(script), 0o600))
}

// scanCommand: scan FILE.png OUT: reads the QR code of a picture, as a scanner
// does, and writes its text.
func scanCommand(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: scan FILE.png OUT")
	}
	picture, err := png.Decode(strings.NewReader(ts.ReadFile(args[0])))
	ts.Check(err)
	// The decoder gives up on some codes at some sizes; a person moves the scanner.
	for away := 1; away <= 5; away++ {
		smaller := image.NewGray(image.Rect(0, 0, picture.Bounds().Dx()/away, picture.Bounds().Dy()/away))
		for i := range smaller.Pix {
			smaller.Set(i%smaller.Stride, i/smaller.Stride, picture.At(i%smaller.Stride*away, i/smaller.Stride*away))
		}
		bits, err := gozxing.NewBinaryBitmapFromImage(smaller)
		ts.Check(err)
		if found, err := qrcode.NewQRCodeReader().Decode(bits, nil); err == nil {
			ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(found.GetText()+"\n"), 0o600))
			return
		}
	}
	ts.Fatalf("no code can be read in %s", args[0])
}

// eventuallyCommand: eventually PATTERN COMMAND ARG…: gives a command again until its
// output matches: some things are told a moment after they were done.
func eventuallyCommand(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN COMMAND ARG…")
	}
	want := regexp.MustCompile("(?m)" + args[0])
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		ts.Check(ts.Exec(args[1], args[2:]...))
		switch {
		case want.MatchString(ts.ReadFile("stdout")):
			return
		case time.Now().After(until):
			ts.Fatalf("no match for %q in the output of %s", args[0], strings.Join(args[1:], " "))
		}
	}
}

// devicesCommand: devices FILE FIRST COUNT: writes a batch of COUNT devices from
// DevEUI FIRST on.
func devicesCommand(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: devices FILE FIRST COUNT")
	}
	first, err := strconv.ParseUint(args[1], 16, 64)
	ts.Check(err)
	count, err := strconv.Atoi(args[2])
	ts.Check(err)
	var b strings.Builder
	b.WriteString("joinEUI;DevEUI\n")
	for i := range count {
		fmt.Fprintf(&b, "0200000000000100;%016X\n", first+uint64(i))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b.String()), 0o600))
}

// exitCodeCommand: exitcode CODE COMMAND ARG…: runs a program and wants exactly
// this exit code. Its output is in the files out and err.
func exitCodeCommand(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if err != nil {
		text := err.Error()
		if _, err := fmt.Sscanf(text, "exit status %d", &code); err != nil {
			ts.Fatalf("%s", text)
		}
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}
