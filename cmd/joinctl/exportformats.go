package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"joinery/internal/exportfile"
	"joinery/lorawan"
)

// The writers of this file put keys into one buffer each, which is cleared behind
// the writing.

// lineOf is one line on its way into a file of keys.
type lineOf struct{ b []byte }

func (l *lineOf) text(parts ...string) *lineOf {
	for _, p := range parts {
		l.b = append(l.b, p...)
	}
	return l
}

// key puts a key in, and clears it. Of none it writes nothing.
func (l *lineOf) key(before string, k []byte, after string) *lineOf {
	if k != nil {
		l.b = append(append(append(l.b, before...), k...), after...)
		clear(k)
	}
	return l
}

func (l *lineOf) to(w io.Writer) error {
	l.b = append(l.b, '\n')
	_, err := w.Write(l.b)
	clear(l.b)
	return err
}

// newLine has room for every line but that of a device with very many DevNonces.
func newLine() *lineOf { return &lineOf{b: make([]byte, 0, 4<<10)} }

// jsonExport is a line of JSON a device, with all that the file says of it.
type jsonExport struct{}

func (jsonExport) begin(io.Writer) error { return nil }

func (jsonExport) device(w io.Writer, m exportfile.Metadata, keys []exportfile.OpenedKey) error {
	about, err := json.Marshal(m)
	if err != nil {
		return err
	}
	l := newLine().text(strings.TrimSuffix(string(about), "}"), `,"keys":[`)
	for i, k := range keys {
		if i > 0 {
			l.text(",")
		}
		l.text(`{"root":"`, k.Root, `","kcv":"`, k.KCV, `"`).key(`,"key":"`, rootOf(keys, k.Root), `"}`)
	}
	return l.text("]}").to(w)
}

// chirpstackExport is a line of JSON a device: the bodies of the requests that make
// a device and that set its keys (api.Device, api.DeviceKeys), and the nonces, for
// which that API has no place.
type chirpstackExport struct{}

func (chirpstackExport) begin(io.Writer) error { return nil }

func (chirpstackExport) device(w io.Writer, m exportfile.Metadata, keys []exportfile.OpenedKey) error {
	devEUI := strings.ToLower(m.DevEUI.String())
	l := newLine().text(`{"device":{"devEui":"`, devEUI, `","joinEui":"`, strings.ToLower(m.JoinEUI.String()), `","name":"`, devEUI,
		`"},"deviceKeys":{"devEui":"`, devEUI, `"`)
	// nwk_key has the one root key of a 1.0.x device, which is called AppKey there;
	// app_key is for 1.1 alone.
	l.key(`,"nwkKey":"`, rootOf(keys, m.Root10), `"`)
	if m.MACVersion.HasTwoRootKeys() {
		l.key(`,"appKey":"`, rootOf(keys, exportfile.AppKey), `"`)
	}
	nonces, err := json.Marshal(chirpstackNonces{m.JoinNonce, m.SealRow().UsedDevNonces})
	if err != nil {
		return err
	}
	return l.text(`},"nonces":`, string(nonces), "}").to(w)
}

// chirpstackNonces is what ChirpStack keeps of nonces in device_keys of its database,
// and no call of its API sets: the last JoinNonce, and DevNonces that were used (of a
// device that counts them the last one).
type chirpstackNonces struct {
	JoinNonce lorawan.JoinNonce  `json:"joinNonce"`
	DevNonces []lorawan.DevNonce `json:"devNonces,omitempty"`
}

// minds tells whether a device refuses accepts whose JoinNonce is not above the last
// one that it took: those of LoRaWAN 1.0.4 and 1.1 do (TS001-1.0.4 §6.2.5).
func minds(m exportfile.Metadata) bool {
	return m.MACVersion.CountsDevNonces() && m.JoinNonce > 0
}

// noncesFrom notes the devices whose nonces a format cannot carry, on their way to
// it.
type noncesFrom struct {
	exportWriter
	minding int
	highest lorawan.JoinNonce
}

func (n *noncesFrom) device(w io.Writer, m exportfile.Metadata, keys []exportfile.OpenedKey) error {
	if minds(m) {
		n.minding++
		n.highest = max(n.highest, m.JoinNonce)
	}
	return n.exportWriter.device(w, m, keys)
}

// ttsExport is what The Things Stack imports: a CSV, or JSON objects one after
// another, which also say what nonces were used.
type ttsExport struct {
	plan string
	csv  bool
}

// begin writes the columns of a CSV. The Things Stack reads an empty cell as a value:
// a frequency plan that nobody said has no column, then.
func (t ttsExport) begin(w io.Writer) error {
	if !t.csv {
		return nil
	}
	columns := []string{"id", "dev_eui", "join_eui", "lorawan_version", "lorawan_phy_version"}
	if t.plan != "" {
		columns = append(columns, "frequency_plan_id")
	}
	_, err := fmt.Fprintln(w, strings.Join(append(columns, "app_key", "nwk_key"), ";"))
	return err
}

// ttsVersions are lorawan_version and a lorawan_phy_version that goes with it: which
// revision a device has the file does not know.
var ttsVersions = map[lorawan.MACVersion][2]string{
	lorawan.MAC1_0_0: {"MAC_V1_0", "PHY_V1_0"}, lorawan.MAC1_0_1: {"MAC_V1_0_1", "PHY_V1_0_1"}, lorawan.MAC1_0_2: {"MAC_V1_0_2", "PHY_V1_0_2_REV_B"},
	lorawan.MAC1_0_3: {"MAC_V1_0_3", "PHY_V1_0_3_REV_A"}, lorawan.MAC1_0_4: {"MAC_V1_0_4", "RP002_V1_0_0"}, lorawan.MAC1_1: {"MAC_V1_1", "PHY_V1_1_REV_B"},
}

func (t ttsExport) device(w io.Writer, m exportfile.Metadata, keys []exportfile.OpenedKey) error {
	// app_key is the one root key of a 1.0.x device, whatever its element calls it. In
	// a CSV it stands in nwk_key, too: an empty cell there would be the key of sixteen
	// zero bytes, and The Things Stack takes a NwkKey that it has for 1.0.x as well.
	app, nwk := rootOf(keys, m.Root10), []byte(nil)
	switch {
	case m.MACVersion.HasTwoRootKeys():
		clear(app)
		app, nwk = rootOf(keys, exportfile.AppKey), rootOf(keys, exportfile.NwkKey)
	case t.csv:
		nwk = rootOf(keys, m.Root10)
	}
	version := ttsVersions[m.MACVersion]
	id := "eui-" + strings.ToLower(m.DevEUI.String())
	if t.csv {
		l := newLine().text(id, ";", m.DevEUI.String(), ";", m.JoinEUI.String(), ";", version[0], ";", version[1], ";")
		if t.plan != "" {
			l.text(t.plan, ";")
		}
		return l.key("", app, ";").key("", nwk, "").to(w)
	}
	l := newLine().text(`{"ids":{"device_id":"`, id, `","dev_eui":"`, m.DevEUI.String(), `","join_eui":"`, m.JoinEUI.String(),
		`"},"supports_join":true,"lorawan_version":"`, version[0], `","lorawan_phy_version":"`, version[1], `"`)
	if t.plan != "" {
		plan, err := json.Marshal(t.plan)
		if err != nil {
			return err
		}
		l.text(`,"frequency_plan_id":`, string(plan))
	}
	nonces, err := json.Marshal(ttsNoncesOf(m))
	if err != nil {
		return err
	}
	l.text(`,"root_keys":{`).key(`"app_key":{"key":"`, app, `"}`)
	l.key(`,"nwk_key":{"key":"`, nwk, `"}`)
	return l.text("},", strings.TrimPrefix(string(nonces), "{")).to(w)
}

// ttsNonces is what The Things Stack keeps of nonces.
type ttsNonces struct {
	UsedDevNonces []lorawan.DevNonce `json:"used_dev_nonces,omitempty"`
	LastDevNonce  *uint32            `json:"last_dev_nonce,omitempty"`
	LastJoinNonce lorawan.JoinNonce  `json:"last_join_nonce"`
}

func ttsNoncesOf(m exportfile.Metadata) ttsNonces {
	row := m.SealRow()
	out := ttsNonces{LastJoinNonce: m.JoinNonce, UsedDevNonces: row.UsedDevNonces}
	if m.MACVersion.CountsDevNonces() && len(row.UsedDevNonces) > 0 {
		last := uint32(row.UsedDevNonces[0])
		out.UsedDevNonces, out.LastDevNonce = nil, &last
	}
	return out
}
