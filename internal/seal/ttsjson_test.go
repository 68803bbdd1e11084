package seal

import (
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"joinery/lorawan"
)

func TestTTSJSON(t *testing.T) {
	k := newTestKeys()
	object := func(devEUI, rest string) string {
		return `{"ids":{"device_id":"d","application_ids":{"application_id":"a"},"dev_eui":"` + devEUI + `","join_eui":"` + join + `"},` +
			`"supports_join":true,"lorawan_phy_version":"PHY_V1_0_3_REV_A","frequency_plan_id":"EU_863_870",` + rest + `}`
	}
	key := func(name, letter string) string { return `"` + name + `":{"key":"$` + letter + `"}` }
	list := []string{
		object(dev1, `"lorawan_version":"MAC_V1_0_3","root_keys":{`+key("app_key", "A")+`},"used_dev_nonces":[9,2,9],"last_join_nonce":4`),
		object(dev2, `"lorawan_version":"MAC_V1_1","root_keys":{`+key("app_key", "A")+`,`+key("nwk_key", "N")+`}`),
		object(dev2, `"lorawan_version":"MAC_V1_0_4","last_dev_nonce":7,"root_keys":{"nwk_key":{"key":"`+base64.StdEncoding.EncodeToString(k["N"])+`"}}`),
		object(dev2, `"lorawan_version":"MAC_V1_0_3"`),
		object(dev2, `"lorawan_version":"MAC_V9","root_keys":{`+key("app_key", "A")+`}`),
		object("12", `"lorawan_version":"MAC_V1_0_3","root_keys":{`+key("app_key", "A")+`}`),
		object(dev1, `"lorawan_version":"MAC_V1_0_3","root_keys":{"app_key":{"encrypted_key":"x","kek_label":"y"}}`),
		object(dev1, `"lorawan_version":"MAC_V1_0_3","root_keys":{"app_key":{"key":"$A00"}}`),
		object(dev1, `"lorawan_version":"MAC_V1_0_3","root_keys":{`+key("app_key", "A")+`,`+key("nwk_key", "N")+`}`),
		object(dev1, `"lorawan_version":"MAC_V1_0_3","root_keys":{`+key("app_key", "A")+`},"last_join_nonce":16777216`),
		`{"ids":7}`,
	}
	want := []got{
		{1, join, dev1, "1.0.3", "", "A", "AppKey", []lorawan.DevNonce{2, 9}, 4},
		{2, join, dev2, "1.1.0", "N", "A", "NwkKey", nil, 0},
		{3, join, dev2, "1.0.4", "N", "", "NwkKey", []lorawan.DevNonce{7}, 0},
	}
	wantBad := []string{
		"line 4: the device has no root keys here", "line 5: lorawan_version", "line 6: dev_eui", "line 7: AppKey is encrypted",
		"line 8: AppKey: want 32", "line 9: a 1.0.x device has one root key", "line 10: last_join_nonce", "line 11: not a device of The Things Stack",
	}
	for name, text := range map[string]string{
		"one after the other":  "\xEF\xBB\xBF \n" + strings.Join(list, "\n"),
		"in an array":          "[" + strings.Join(list, ",") + "]\n",
		"all on one long line": strings.Join(list, ""),
	} {
		rows, bad := k.read(t, text, KeyListOptions{})
		if diff := cmp.Diff(want, rows); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if len(bad) != len(wantBad) {
			t.Fatalf("%s: %q", name, bad)
		}
		for i := range bad {
			if !strings.HasPrefix(bad[i], wantBad[i]) {
				t.Errorf("%s: %q, want %q", name, bad[i], wantBad[i])
			}
		}
	}
	r, err := KeyList(strings.NewReader(`[{"ids":{}`), publicKey(t, recipient()), KeyListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); !errors.Is(err, ErrKeyList) || errors.Is(err, io.EOF) {
		t.Errorf("a list that breaks off: %v", err)
	}
}
