package manifest_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"joinery/lorawan"
	"joinery/manifest"
)

const (
	listJoin = "70B3D57ED0000000"
	listDev  = "0004A310001AA90A"
)

func readList(text string) (list []manifest.Listed, err error) {
	r, err := manifest.ReadDeviceList(strings.NewReader(text))
	for err == nil {
		var d manifest.Listed
		if d, err = r.Next(); err == nil {
			list = append(list, d)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return list, err
}

func TestDeviceList(t *testing.T) {
	joinEUI, _ := lorawan.ParseEUI64(listJoin)
	devEUI, _ := lorawan.ParseEUI64(listDev)
	listed := func(line uint64, id string, v lorawan.MACVersion) manifest.Listed {
		return manifest.Listed{Line: line, ID: id, JoinEUI: joinEUI, DevEUI: devEUI, MACVersion: v}
	}
	object := `{"ids":{"device_id":"a","join_eui":"` + listJoin + `","dev_eui":"` + listDev + `"},"lorawan_version":"MAC_V1_0_3","name":"key",` +
		`"root_keys":{"root_key_id":"x","app_key":{"encrypted_key":"AAAA","kek_label":"l"}},"claim_authentication_code":{"value":"C05EA29C"}}`
	for name, c := range map[string]struct {
		text string
		want []manifest.Listed
	}{
		"commas": {"id,dev_eui,join_eui,lorawan_version,app_key\na," + listDev + "," + listJoin + ",MAC_V1_0_3,\n",
			[]manifest.Listed{listed(2, "a", lorawan.MAC1_0_3)}},
		"semicolons, old name, quotes over lines": {"\xEF\xBB\xBFDev_EUI;app_eui;name\r\n" + listDev + ";" + strings.ToLower(listJoin) + ";\"x;\ny\"\r\n" + listDev + ";" + listJoin + ";\r\n",
			[]manifest.Listed{listed(2, "", 0), listed(4, "", 0)}},
		"JSON, one after the other": {object + "\n" + object, []manifest.Listed{listed(1, "a", lorawan.MAC1_0_3), listed(2, "a", lorawan.MAC1_0_3)}},
		"JSON array":                {" [" + object + "]", []manifest.Listed{listed(1, "a", lorawan.MAC1_0_3)}},
		"empty array":               {"[]", nil},
	} {
		got, err := readList(c.text)
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}

func TestDeviceListRefuses(t *testing.T) {
	const key = "2B7E151628AED2A6ABF7158809CF4F3C"
	csv := func(columns, fields string) string {
		return "dev_eui,join_eui," + columns + "\n" + listDev + "," + listJoin + "," + fields + "\n"
	}
	object := func(rest string) string {
		return fmt.Sprintf(`{"ids":{"join_eui":"%s","dev_eui":"%s"},%s}`, listJoin, listDev, rest)
	}
	for name, c := range map[string]struct {
		text string
		want error
		says string
	}{
		"AppKey":               {csv("app_key", key), manifest.ErrClearKey, "line 2"},
		"NwkKey":               {csv("x,nwk_key", ","+key), manifest.ErrClearKey, "line 2"},
		"session key":          {csv("app_s_key", key), manifest.ErrClearKey, "line 2"},
		"what is no key":       {csv("app_key", "short"), manifest.ErrClearKey, "line 2"},
		"JSON, AppKey":         {object(`"root_keys":{"app_key":{"key":"` + key + `"}}`), manifest.ErrClearKey, "device 1"},
		"JSON, session":        {"[" + object(`"x":1`) + "," + object(`"session":{"keys":{"app_s_key":{"key":"`+key+`"}}}`) + "]", manifest.ErrClearKey, "device 2"},
		"JSON, key as text":    {object(`"app_key":"` + key + `"`), manifest.ErrClearKey, "device 1"},
		"empty":                {" \n", manifest.ErrDeviceList, ""},
		"no join_eui":          {"dev_eui,name\n", manifest.ErrDeviceList, "join_eui"},
		"fields missing":       {"dev_eui,join_eui\n" + listDev + "\n", manifest.ErrDeviceList, "line 2"},
		"DevEUI":               {"dev_eui,join_eui\n12," + listJoin + "\n", manifest.ErrDeviceList, "dev_eui"},
		"version":              {csv("lorawan_version", "MAC_V7"), manifest.ErrDeviceList, "lorawan_version"},
		"JSON that breaks off": {object(`"x":1`)[:40], manifest.ErrDeviceList, "device 1"},
		"JSON of another kind": {`{"ids":{"dev_eui":7}}`, manifest.ErrDeviceList, "device 1"},
	} {
		_, err := readList(c.text)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
