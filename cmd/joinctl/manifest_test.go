package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joinery/client"
	"joinery/manifest"
	"joinery/manifest/manifesttest"
)

// files is a directory with what a maker gives away.
type files struct {
	t   *testing.T
	dir string
}

func (f files) path(name string) string { return filepath.Join(f.dir, name) }

func (f files) write(name string, content []byte) string {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), content, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return f.path(name)
}

// run runs joinctl in this process.
func (s server) run(t *testing.T, args ...string) (code int, out, said string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	args = append(args, "--socket", s.config.API.Socket)
	code = run(args, strings.NewReader(""), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// TestManifest goes the way of chips of Microchip: the operator shares the maker's
// log signer, a buyer checks and imports the file, another one who has it, too, is
// told of a conflict.
func TestManifest(t *testing.T) {
	s := startServer(t)
	f := files{t, t.TempDir()}
	m := manifesttest.NewMaker(t)
	good := func(code int, out, said string) (string, string) {
		t.Helper()
		if code != exitDone {
			t.Fatalf("exit code %d: %s%s", code, out, said)
		}
		return out, said
	}
	entries := [][]byte{
		m.Entry(manifesttest.NewPart(manifesttest.Second, 0x70B3D57ED0000000, 1)),
		m.Entry(manifesttest.NewPart(manifesttest.Third, 0x70B3D57ED0000000, 2)),
		m.Entry(manifesttest.NewPart(manifesttest.First, 0x70B3D57ED0000000, 3)),
	}
	list := func(entries ...[]byte) []byte {
		return append(append([]byte("["), bytes.Join(entries, []byte(",\n"))...), ']')
	}
	whole, sound := f.write("whole.json", list(entries...)), f.write("sound.json", list(entries[:2]...))
	log, root := f.write("log.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.Log})), f.write("root.der", m.Root)

	// Without a server.
	offline := []string{"--family", "microchip", "--cert", log, "--root", root}
	code, out, said := s.run(t, append([]string{"manifest", "check", whole, "--results", f.path("results")}, offline...)...)
	if code != exitPartial || !strings.Contains(said, "2 good, 1 refused") || !strings.Contains(out, "line 3: a part of the first generation") ||
		!strings.Contains(out, "serial 0123114e0000000327") {
		t.Errorf("%d %s%s", code, out, said)
	}
	if lines, err := os.ReadFile(f.path("results")); err != nil || bytes.Count(lines, []byte("\n")) != 3 || !bytes.Contains(lines, []byte(`"serial":"0123114e0000000127"`)) {
		t.Errorf("%s, %v", lines, err)
	}
	if code, _, said := s.run(t, "manifest", "check", sound, "--family", "microchip", "--cert", log); code != exitUsage || !strings.Contains(said, "--root") {
		t.Errorf("no root: %d %s", code, said)
	}

	// The operator serves the JoinEUI and shares the signer.
	operator := []string{"--org", "operator"}
	good(s.run(t, append([]string{"range", "assign", "70B3D57ED0000000", "--elements"}, operator...)...))
	good(s.run(t, append([]string{"manifest", "signers", "add", "Log Signer 002", "--shared", "--serial-suffix", "27", "--master", "quickstart",
		"--join-euis", "70B3D57ED0000000", "--dev-euis", "0004A30000000000/24", "--family", "microchip", "--cert", log, "--root", root}, operator...)...))
	if out, _ := good(s.run(t, "manifest", "signers", "list")); !strings.Contains(out, "everybody") {
		t.Errorf("%s", out)
	}

	// A buyer without any range.
	good(s.run(t, "org", "add", "Buyer"))
	good(s.run(t, "org", "add", "Second"))
	if code, _, said := s.run(t, "manifest", "check", whole, "--org", "Buyer"); code != exitPartial || !strings.Contains(said, "2 good, 1 refused") {
		t.Errorf("%d %s", code, said)
	}
	imported := func(org string, more ...string) (int, struct {
		Import  client.Import
		Refused []client.RowResult
	}) {
		t.Helper()
		args := append([]string{"manifest", "import", whole, "--mac-version", "1.0.4", "--json", "--org", org}, more...)
		code, out, said := s.run(t, args...)
		var got struct {
			Import  client.Import
			Refused []client.RowResult
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		return code, got
	}
	if code, got := imported("Buyer", "--dry-run"); code != exitPartial || got.Import.Created != 2 || got.Import.Failed != 1 {
		t.Errorf("%d %+v", code, got)
	}
	if code, got := imported("Buyer"); code != exitPartial || got.Import.Created != 2 || len(got.Refused) != 1 || got.Refused[0].Serial != "0123114e0000000327" || got.Refused[0].Status != "failed" {
		t.Errorf("%d %+v", code, got)
	}
	if code, got := imported("Second"); code != exitPartial || got.Import.Failed != 3 || got.Refused[0].Status != "conflict" || strings.Contains(got.Refused[0].Reason, "Buyer") {
		t.Errorf("%d %+v", code, got)
	}
	signed, err := manifest.SignedPart(entries[1])
	if out, _ := good(s.run(t, "manifest", "entry", "70B3D57ED0000000/0004A310001A0002")); strings.TrimSpace(out) != string(signed) || err != nil {
		t.Errorf("%s", out)
	}

	// Lists of The Things Stack.
	there := f.write("there.csv", []byte("id,dev_eui,join_eui,lorawan_version,app_key\na,0004A310001A0002,70B3D57ED0000000,MAC_V1_0_4,\n"))
	good(s.run(t, "manifest", "check", there))
	gone := f.write("gone.json", []byte(`{"ids":{"dev_eui":"0004A310001A0009","join_eui":"70B3D57ED0000000"}}`))
	if code, out, _ := s.run(t, "manifest", "check", gone); code != exitPartial || !strings.Contains(out, "no such device") {
		t.Errorf("%d %s", code, out)
	}
	withKey := f.write("clear.csv", []byte("dev_eui,join_eui,app_key\n0004A310001A0002,70B3D57ED0000000,2B7E151628AED2A6ABF7158809CF4F3C\n"))
	for _, args := range [][]string{{"manifest", "check", withKey}, {"manifest", "import", withKey, "--mac-version", "1.0.4"}} {
		if code, out, said := s.run(t, args...); code != exitFailed || !strings.Contains(said, "in the clear") || !strings.Contains(said, "joinctl import keys") || strings.Contains(out+said, "2B7E") {
			t.Errorf("%v: %d %s%s", args, code, out, said)
		}
	}
}
