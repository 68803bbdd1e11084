package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"strings"
	"testing"

	"joinery/internal/exportfile"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// Every format has the right key in the right place. Of an element with LoRaWAN
// 1.0.x that is the value of NwkKey, where other servers look for AppKey.
func TestExportFormats(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	to, err := seal.NewPublicKeyFor(&key.PublicKey, seal.AlgRSAOAEP256)
	if err != nil {
		t.Fatal(err)
	}
	nwk, app := bytes.Repeat([]byte{0xA1}, 16), bytes.Repeat([]byte{0xB2}, 16)
	const nwkText, appText = "A1A1A1A1A1A1A1A1A1A1A1A1A1A1A1A1", "B2B2B2B2B2B2B2B2B2B2B2B2B2B2B2B2"
	about := func(v lorawan.MACVersion, root10 string, n exportfile.Nonces) exportfile.Metadata {
		n.JoinEUI = lorawan.EUI64{1}
		return exportfile.Metadata{JoinEUI: n.JoinEUI, DevEUI: lorawan.EUI64{2}, MACVersion: v, Root10: root10, JoinNonce: 5, Nonces: []exportfile.Nonces{n}}
	}
	devices := []struct {
		name                     string
		m                        exportfile.Metadata
		keys                     []exportfile.OpenedKey
		csv, json, chirpstack, p string
	}{
		{"element, 1.0.3", about(lorawan.MAC1_0_3, exportfile.NwkKey, exportfile.Nonces{UsedDevNonces: []lorawan.DevNonce{7, 9}}),
			[]exportfile.OpenedKey{{Root: exportfile.NwkKey, KCV: "AAAAAA", Key: nwk}},
			";MAC_V1_0_3;PHY_V1_0_3_REV_A;EU_863_870_TTN;" + nwkText + ";" + nwkText + "\n",
			`"root_keys":{"app_key":{"key":"` + nwkText + `"}},"used_dev_nonces":[7,9],"last_join_nonce":5}`,
			`,"nwkKey":"` + nwkText + `"},"nonces":{"joinNonce":5,"devNonces":[7,9]}}`, `"keys":[{"root":"NwkKey","kcv":"AAAAAA","key":"` + nwkText + `"}]}`},
		{"of a list, 1.0.4", about(lorawan.MAC1_0_4, exportfile.AppKey, exportfile.Nonces{NextDevNonce: 10}),
			[]exportfile.OpenedKey{{Root: exportfile.AppKey, KCV: "BBBBBB", Key: app}},
			";MAC_V1_0_4;RP002_V1_0_0;EU_863_870_TTN;" + appText + ";" + appText + "\n",
			`"root_keys":{"app_key":{"key":"` + appText + `"}},"last_dev_nonce":9,"last_join_nonce":5}`,
			`,"nwkKey":"` + appText + `"},"nonces":{"joinNonce":5,"devNonces":[9]}}`, `"keys":[{"root":"AppKey","kcv":"BBBBBB","key":"` + appText + `"}]}`},
		{"1.1", about(lorawan.MAC1_1, exportfile.NwkKey, exportfile.Nonces{NextDevNonce: 3}),
			[]exportfile.OpenedKey{{Root: exportfile.NwkKey, KCV: "AAAAAA", Key: nwk}, {Root: exportfile.AppKey, KCV: "BBBBBB", Key: app}},
			";MAC_V1_1;PHY_V1_1_REV_B;EU_863_870_TTN;" + appText + ";" + nwkText + "\n",
			`"root_keys":{"app_key":{"key":"` + appText + `"},"nwk_key":{"key":"` + nwkText + `"}},"last_dev_nonce":2,"last_join_nonce":5}`,
			`,"nwkKey":"` + nwkText + `","appKey":"` + appText + `"},"nonces":{"joinNonce":5,"devNonces":[2]}}`, `{"root":"AppKey","kcv":"BBBBBB","key":"` + appText + `"}]}`},
	}
	for _, d := range devices {
		for format, want := range map[string]string{"tts-csv": d.csv, "tts-json": d.json, "chirpstack": d.chirpstack, "json": d.p} {
			w := exportFormats[format]("EU_863_870_TTN")
			counted := &noncesFrom{exportWriter: w}
			w = counted
			var out bytes.Buffer
			if err := errors.Join(w.begin(&out), w.device(&out, d.m, d.keys)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(out.Bytes(), []byte(want)) {
				t.Errorf("%s, %s:\n%s\nlacks %s", d.name, format, &out, want)
			}
			// An empty cell is a value there: no plan, or a key of zeros.
			if format == "tts-csv" {
				var planless bytes.Buffer
				w = exportFormats[format]("")
				if err := errors.Join(w.begin(&planless), w.device(&planless, d.m, d.keys)); err != nil {
					t.Fatal(err)
				}
				head, row, _ := strings.Cut(planless.String(), "\n")
				if strings.Contains(head, "frequency_plan_id") || strings.Contains(row, ";;") || strings.HasSuffix(row, ";\n") || strings.Count(head, ";") != strings.Count(row, ";") {
					t.Errorf("%s:\n%s", d.name, &planless)
				}
			}
			if minds := d.m.MACVersion.CountsDevNonces(); (counted.minding == 1) != minds || minds && counted.highest != 5 {
				t.Errorf("%s: %d devices mind the JoinNonce, of which the highest is %d", d.name, counted.minding, counted.highest)
			}
			if format == "tts-csv" || format == "tts-json" {
				readBack(t, to, d.name+", "+format, &out, d.m, format == "tts-json")
			}
		}
	}
}

// readBack has our own reader of The Things Stack's files read one, which knows
// nothing of its writer.
func readBack(t *testing.T, to seal.PublicKey, name string, in io.Reader, m exportfile.Metadata, nonces bool) {
	t.Helper()
	list, err := seal.KeyList(in, to, seal.KeyListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	row, err := list.Next()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	want := m.SealRow()
	if row.DevEUI != m.DevEUI || row.JoinEUI != m.JoinEUI || row.MACVersion != m.MACVersion || len(row.AppKey) == 0 {
		t.Errorf("%s: %+v", name, row)
	}
	if nonces && (row.JoinNonceFloor != m.JoinNonce || len(row.UsedDevNonces) != len(want.UsedDevNonces)) {
		t.Errorf("%s: nonces %v, floor %d", name, row.UsedDevNonces, row.JoinNonceFloor)
	}
	if _, err := list.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("%s: more came: %v", name, err)
	}
}
