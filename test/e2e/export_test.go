package e2e

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"joinery/client"
	"joinery/internal/exportfile"
	"joinery/test/rig"
)

// exported is how many devices the export of TestExportKilled has: two pages of
// the custody process.
const exported = 250

// The server starts the custody process by itself. Both are killed while that works,
// each time that a part is done. The export goes on where it was: every device is
// there once, and every one was disclosed once, in the log, before it could be had.
func TestExportKilled(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	programs, err := rig.Build(ctx, dir)
	ok(t, err)
	server, err := programs.Quickstart(ctx, filepath.Join(dir, "server"), "--elements", "1")
	ok(t, err)
	automatic(t, server)
	ok(t, server.Start(ctx))
	t.Cleanup(func() { _ = server.Stop() }) // it may be stopped already
	s := &scene{t: t, server: server}

	list, key, out := filepath.Join(dir, "list.csv"), filepath.Join(dir, "public.pem"), filepath.Join(dir, "export.jsonl")
	_, err = programs.Run(ctx, "", "joinsim", "load", "prepare", "--seed", "export", "--join-eui", "0200000000000100", "--devices", "1.0.3="+strconv.Itoa(exported), "--out", list)
	ok(t, err)
	s.ctl("import", "keys", list)
	ok(t, os.Rename(server.Path("transport.pub"), key)) // any RSA key will do: nobody opens the file here
	s.ctl("export", "recipient", "add", "laptop", key)
	e := answer[client.Export](s, "export", "request", "--all", "--to", "laptop")

	kills, custody := 0, 0
	for until, last := time.Now().Add(time.Minute), int64(0); e.State != "ready"; {
		if time.Now().After(until) {
			t.Fatalf("%+v\n%s", e, server.Log())
		}
		time.Sleep(20 * time.Millisecond)
		e = answer[client.Export](s, "export", "show", e.ID.String())
		if e.State == "working" && e.Wrapped > last {
			last = e.Wrapped
			custody += killCustody(t, server.Holder())
			ok(t, server.Kill())
			ok(t, server.Start(ctx))
			kills++
		}
	}
	if kills == 0 || custody == 0 {
		t.Errorf("it was ready before anybody could kill both: %d kills of the server, %d of the custody process", kills, custody)
	}
	if e.Wrapped != exported || e.Dropped != 0 {
		t.Errorf("%+v", e)
	}
	// A download that was cut off in the middle of a line goes on behind the last
	// whole one.
	s.ctl("export", "download", e.ID.String(), "--out", out+".first", "--keep")
	text, err := os.ReadFile(out + ".first")
	ok(t, err)
	ok(t, os.WriteFile(out+".part", text[:len(text)*2/3], 0o600))
	s.ctl("export", "download", e.ID.String(), "--out", out)
	again, err := os.ReadFile(out)
	ok(t, err)
	if !bytes.Equal(again, text) {
		t.Error("the file that was cut off is another one now")
	}
	whole(t, out, exported)
	if n := strings.Count(s.ctl("audit", "list", "--json"), `"keys.exposed"`); n != exported {
		t.Errorf("%d disclosures in the log", n)
	}
	e = answer[client.Export](s, "export", "show", e.ID.String())
	if e.State != "delivered" {
		t.Errorf("%+v", e)
	}
	ok(t, server.Stop())
	_, err = programs.Run(ctx, "", "joinery", "fsck", "--config", server.Path("joinery.yaml"))
	ok(t, err)
}

// killCustody kills the custody process that a server started, and counts it.
func killCustody(t *testing.T, server int) (killed int) {
	t.Helper()
	tasks, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(server), "task/*/children"))
	ok(t, err)
	for _, task := range tasks {
		children, err := os.ReadFile(task)
		if err != nil { // a thread that ended
			continue
		}
		for child := range strings.FieldsSeq(string(children)) {
			command, err := os.ReadFile(filepath.Join("/proc", child, "cmdline"))
			pid, bad := strconv.Atoi(child)
			if err == nil && bad == nil && strings.Contains(string(command), "\x00export\x00run\x00") && syscall.Kill(pid, syscall.SIGKILL) == nil {
				killed++
			}
		}
	}
	return killed
}

// automatic has a server start the custody process by itself.
func automatic(t *testing.T, server *rig.Server) {
	t.Helper()
	path := server.Path("joinery.yaml")
	text, err := os.ReadFile(path)
	ok(t, err)
	head, tail, found := strings.Cut(string(text), "\nexport:\n")
	if !found {
		t.Fatal("the configuration says nothing of exports")
	}
	tail = strings.Replace(tail, "automatic: false", "automatic: true", 1)
	tail = strings.Replace(tail, `    file: ""`, "    file: keys/custody.age", 1)
	tail = strings.Replace(tail, `    passphrase_file: ""`, "    passphrase_file: keys/custody.passphrase", 1)
	ok(t, os.WriteFile(path, []byte(head+"\nexport:\n"+tail), 0o600))
}

// whole checks that a file has n devices, none twice, each as it was signed.
func whole(t *testing.T, path string, n int) {
	t.Helper()
	f, err := os.Open(path)
	ok(t, err)
	defer func() { _ = f.Close() }()
	r, err := exportfile.NewReader(bufio.NewReader(f))
	ok(t, err)
	v, err := exportfile.NewVerifier(r.Header(), r.Header().Signer.Thumbprint())
	ok(t, err)
	seen := map[string]bool{}
	for range n {
		d, err := r.Next()
		ok(t, err)
		ok(t, v.Verify(d))
		seen[d.DevEUI.String()] = true
	}
	if _, err := r.Next(); err == nil || len(seen) != n {
		t.Errorf("%d devices, and more: %v", len(seen), err)
	}
}
