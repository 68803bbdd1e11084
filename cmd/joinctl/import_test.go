package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/client"
)

// joinctl makes the program as a process of its own.
func joinctl(t *testing.T, s server, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), exe)
	c.Args = append([]string{"joinctl"}, args...) // testscript.Main goes by the name
	c.Env = append(os.Environ(), "JOINCTL_SOCKET="+s.config.API.Socket, "JOINCTL_SERVER=", "JOINCTL_ORG=")
	return c
}

// TestImportGoesOnAfterKill kills an import in the middle and gives the same
// command again.
func TestImportGoesOnAfterKill(t *testing.T) {
	s := startServer(t)
	const rows = 6000
	var list bytes.Buffer
	list.WriteString("JoinEUI,DevEUI,MACVersion,AppKey\n")
	for i := range rows {
		key := make([]byte, 16)
		rand.Read(key) // never fails (crypto/rand)
		text := hex.EncodeToString(key)
		if i%1000 == 999 {
			text = "short"
		}
		fmt.Fprintf(&list, "0200000000000100,0200BB000000%04X,1.0.3,%s\n", i, text)
	}
	file := filepath.Join(t.TempDir(), "list.csv")
	if err := os.WriteFile(file, list.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	api, err := client.New(client.Options{Socket: s.config.API.Socket})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	sum := sha256.Sum256(list.Bytes())
	begin := client.NewImport{Kind: string(joinery.ImportKeyList), SHA256: hex.EncodeToString(sum[:])}

	results := filepath.Join(t.TempDir(), "results.jsonl")
	first := joinctl(t, s, "import", "keys", file, "--results", results)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	cut := client.Import{}
	for cut.Next < 1000 {
		time.Sleep(5 * time.Millisecond)
		if cut, err = api.BeginImport(t.Context(), begin); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait() // it was killed
	if cut, err = api.Import(t.Context(), cut.ID); err != nil || cut.Done {
		t.Fatalf("the import was over before it was killed: %+v, %v", cut, err)
	}
	t.Logf("killed behind row %d", cut.Next)

	second := joinctl(t, s, "import", "keys", file, "--json", "--results", results)
	var out, said bytes.Buffer
	second.Stdout, second.Stderr = &out, &said
	if err := second.Run(); second.ProcessState.ExitCode() != exitPartial {
		t.Fatalf("%v: %s", err, &said)
	}
	var result struct {
		Import  client.Import
		Refused []client.RowResult
	}
	if err := json.Unmarshal(out.Bytes(), &result); err != nil {
		t.Fatal(err)
	}
	if i := result.Import; !i.Done || i.Next != rows || i.Created != rows-6 || i.Failed != 6 || i.Unchanged != 0 || i.ID != cut.ID {
		t.Errorf("%+v", i)
	}
	for n, r := range result.Refused {
		if r.Line != uint64(1000*(n+1)+1) || r.Reason == "" {
			t.Errorf("refused %+v", r)
		}
	}
	if len(result.Refused) != 6 || !strings.Contains(said.String(), "going on behind row") || strings.Contains(out.String(), "short") {
		t.Errorf("%d refused; said %s", len(result.Refused), &said)
	}
	wantResults(t, results, rows)

	// And once more: the file is whole, and stays so. What was cut off its end, and
	// half a line, is written again.
	whole, err := os.ReadFile(results)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(results, whole[:len(whole)-1000], 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		third := joinctl(t, s, "import", "keys", file, "--results", results)
		if out, err := third.CombinedOutput(); third.ProcessState.ExitCode() != exitPartial {
			t.Fatalf("%v: %s", err, out)
		}
		again, err := os.ReadFile(results)
		if err != nil || !bytes.Equal(again, whole) {
			t.Fatalf("%d bytes of %d, %v", len(again), len(whole), err)
		}
	}
	// What is something else stays what it is.
	for _, text := range []string{"mine\n", `{"index":0,"status":"created","device":"` + joinery.NewDeviceID().String() + `"}` + "\n"} {
		if err := os.WriteFile(results, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		other := joinctl(t, s, "import", "keys", file, "--results", results)
		out, _ := other.CombinedOutput()
		left, err := os.ReadFile(results)
		if other.ProcessState.ExitCode() != exitFailed || !bytes.Contains(out, []byte("name another")) || err != nil || string(left) != text {
			t.Errorf("exit %d: %s; left %q, %v", other.ProcessState.ExitCode(), out, left, err)
		}
	}
}

// wantResults wants one result for each of the rows of TestImportGoesOnAfterKill.
func wantResults(t *testing.T, file string, rows int) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	d := json.NewDecoder(f)
	for i := range rows {
		var r client.RowResult
		if err := d.Decode(&r); err != nil {
			t.Fatalf("row %d: %v", i, err)
		}
		good := r.Status == "created" && r.Device != 0 && r.DevEUI.String() == fmt.Sprintf("0200BB000000%04X", i)
		if i%1000 == 999 {
			good = r.Status == "failed" && r.Reason != "" && r.Device == 0
		}
		if r.Index != uint64(i) || r.Line != uint64(i+2) || !good {
			t.Fatalf("row %d: %+v", i, r)
		}
	}
	if d.More() {
		t.Error("more results than rows")
	}
}

// importServer answers one import's rows with what answers says, in turn.
func importServer(t *testing.T, next uint64, answers ...func(http.ResponseWriter)) (*client.Client, *int) {
	t.Helper()
	posts := new(int)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_ = json.NewEncoder(w).Encode(map[string]any{"id": joinery.NewImportID(), "next": next})
			return
		}
		answers[min(*posts, len(answers)-1)](w)
		*posts++
	}))
	t.Cleanup(s.Close)
	c, err := client.New(client.Options{Server: s.URL, APIKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, posts
}

func refuse(status int, code joinery.Code) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(client.Problem{Title: "t", Code: code})
	}
}

func accept(w http.ResponseWriter) {
	_ = json.NewEncoder(w).Encode(map[string]any{
		"results": []any{map[string]any{"index": 10, "status": "created"}},
		"import":  map[string]any{"id": joinery.NewImportID(), "next": 11},
	})
}

func TestSendBatch(t *testing.T) {
	b := &batch{ImportRows: client.ImportRows{From: 10}, count: 1}
	for _, c := range []struct {
		name    string
		next    uint64
		answers []func(http.ResponseWriter)
		posts   int
		ok      bool
		results int
	}{
		{"at once", 10, []func(http.ResponseWriter){accept}, 1, true, 1},
		{"away for a moment", 10, []func(http.ResponseWriter){refuse(503, joinery.CodeUnavailable), refuse(429, joinery.CodeRateLimited), accept}, 3, true, 1},
		{"refused for good", 10, []func(http.ResponseWriter){refuse(422, joinery.CodeInvalid)}, 1, false, 0},
		{"the answer was lost", 11, []func(http.ResponseWriter){refuse(503, joinery.CodeUnavailable), refuse(409, joinery.CodeConflict)}, 2, true, 0},
		{"somebody else imports it, too", 500, []func(http.ResponseWriter){refuse(409, joinery.CodeConflict)}, 1, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			api, posts := importServer(t, c.next, c.answers...)
			p, err := sendBatch(t.Context(), api, joinery.NewImportID(), b, func() uint64 { return 11 })
			if (err == nil) != c.ok || *posts != c.posts || len(p.Results) != c.results {
				t.Errorf("%+v, %v after %d requests", p, err, *posts)
			}
			if c.ok && p.Import.Next != 11 {
				t.Errorf("the import stands at %d", p.Import.Next)
			}
		})
	}
	api, _ := importServer(t, 10, refuse(503, joinery.CodeUnavailable))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := sendBatch(ctx, api, joinery.NewImportID(), b, func() uint64 { return 11 }); err == nil {
		t.Errorf("a stopped import: %v", err)
	}
}

func TestBadRowsKeepTheirPlace(t *testing.T) {
	b := &batch{ImportRows: client.ImportRows{From: 100}}
	for i := range 4 {
		r := row{key: &client.SealedKeyRow{Line: uint64(i)}}
		if i%2 == 1 {
			r = row{bad: &client.BadRow{Line: uint64(i), Reason: "x"}}
		}
		b.add(r)
	}
	if len(b.Keys) != 2 || len(b.BadRows) != 2 || b.BadRows[0].Index != 101 || b.BadRows[1].Index != 103 || b.count != 4 {
		t.Errorf("%+v", b)
	}
}
