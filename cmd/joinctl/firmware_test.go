package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// Scripts that need no server.
func TestOfflineScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/offline", RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			return os.WriteFile(filepath.Join(e.WorkDir, "large.bin"), bytes.Repeat([]byte("0123456789abcde"), 2<<10), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// sign KEY CODE VERSION HARDWARE COUNTER OUT
			"sign": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(ts.Exec("joinctl", "firmware", "sign", args[1], "--key", args[0]+".key", "--passphrase-file", args[0]+".pass",
					"--product", "meter-3", "--version-text", args[2], "--hardware", args[3], "--counter", args[4], "--out", args[5]))
			},
			// tamper IMAGE OUT
			"tamper": func(ts *testscript.TestScript, _ bool, args []string) {
				b := []byte(ts.ReadFile(args[0]))
				b[len(b)/2] ^= 1
				ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
			},
		},
	})
}
