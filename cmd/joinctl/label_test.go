package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"joinery"
	"joinery/client"
	"joinery/internal/label"
	"joinery/lorawan"
	"joinery/tr005"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]label.Size{"63.5x38.1": {W: 63.5, H: 38.1}, "50X25": {W: 50, H: 25}, "0x0": {}} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "50", "50x", "x50", "50x25x1", "-1x5", "NaNx5", "5×5"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// A list says more of a device than the server knows, and more than the flags.
func TestLabelOf(t *testing.T) {
	product := tr005.ProfileID{Vendor: 1, Profile: 2}
	row := tr005.ProfileID{Vendor: 3, Profile: 4}
	token := client.LabelToken{JoinEUI: lorawan.EUI64{1}, DevEUI: lorawan.EUI64{2}, OwnerToken: "TOKEN", Serial: "0123aabbccddeeff27"}
	base := tr005.Label{JoinEUI: token.JoinEUI, DevEUI: token.DevEUI, ProfileID: product, OwnerToken: "TOKEN", Serial: "0123AABBCCDDEEFF27"}
	listed := base
	listed.ProfileID, listed.Serial, listed.Proprietary = row, "SN 1", "X"
	bare := base
	bare.Serial, bare.Format = "", tr005.Draft2
	for name, c := range map[string]struct {
		style labelStyle
		w     wanted
		want  tr005.Label
	}{
		"an element's serial number in capitals": {labelStyle{profile: product}, wanted{}, base},
		"a list's row":                           {labelStyle{profile: product}, wanted{profile: &row, serial: "SN 1", proprietary: "X"}, listed},
		"without serial number":                  {labelStyle{profile: product, noSerial: true, format: tr005.Draft2}, wanted{serial: "SN 1"}, bare},
	} {
		if got := c.style.label(c.w, token); got != c.want {
			gotJSON, _ := json.Marshal(labelJSON(got, ""))
			t.Errorf("%s: %s", name, gotJSON)
		}
	}
}

// What is wrong with a list is said without what stands in it.
func TestLabelListsErrors(t *testing.T) {
	const secret = "C0FFEE5ECC0FFEE5"
	for name, text := range map[string]string{
		"keys":           "DevEUI,AppKey\n0004A31000000001," + secret + "\n",
		"keys of others": "dev_eui;join_eui;nwk_key\n;;" + secret,
		"JSON":           `{"key":"` + secret + `"}`,
		"quotes":         "DevEUI,JoinEUI\n\"" + secret,
		"no device":      secret + "00\n",
		"no ProfileID":   "DevEUI,JoinEUI,ProfileID\n0004A31000000001,70B3D57ED0000000," + secret,
		"long line":      strings.Repeat(secret, maxListLine/8),
	} {
		failed := false
		for w, err := range labelList(strings.NewReader(text), lorawan.EUI64{}) {
			for _, e := range []error{err, w.bad} {
				if e != nil {
					failed = true
					if strings.Contains(e.Error(), secret) {
						t.Errorf("%s: %v", name, e)
					}
				}
			}
		}
		if !failed {
			t.Errorf("%s: nothing is wrong", name)
		}
	}
}

func TestLabelListWithMark(t *testing.T) {
	var got []wanted
	for w, err := range labelList(strings.NewReader("\xEF\xBB\xBF\"DevEUI\";JoinEUI;Vendor ID;VendorProfileID\r\n0004A31000000001;;a;\r\n\r\n"), lorawan.EUI64{7}) {
		if err != nil || w.bad != nil {
			t.Fatal(err, w.bad)
		}
		got = append(got, w)
	}
	if len(got) != 1 || got[0].ref.JoinEUI != (lorawan.EUI64{7}) || *got[0].profile != (tr005.ProfileID{Vendor: 10}) || got[0].where != "line 2" {
		t.Errorf("%+v", got)
	}
}

// Who pastes a label where its file's name belongs is told so, and the owner token
// is not shown once more.
func TestLabelPastedAsFile(t *testing.T) {
	const token = "C0FFEE5ECC0FFEE5"
	for _, text := range []string{
		"LW:D0:70B3D57ED0000000:0004A31000000001:00010002:O" + token, " lw:d0:70b3d57ed0000000:0004a31000000001:00010002:o" + token,
		"URN:DEV:LW:70B3D57ED0000000_0004A31000000001_00010002_" + token,
	} {
		for _, args := range [][]string{{"label", "read", text}, {"claim", "--qr", text}} {
			var out, said bytes.Buffer
			code := run(args, strings.NewReader(""), &out, &said)
			if shown := out.String() + said.String(); code != exitUsage || strings.Contains(strings.ToUpper(shown), token) || !strings.Contains(shown, "standard input") {
				t.Errorf("%q: exit code %d: %s", args, code, shown)
			}
		}
	}
}

// Whether a device has a serial number decides over its label: then that is asked for
// first, and the token of one whose label cannot be made is never read.
func TestNoTokenIsReadInVain(t *testing.T) {
	ids := []joinery.DeviceID{joinery.NewDeviceID(), joinery.NewDeviceID(), joinery.NewDeviceID()}
	var read []joinery.DeviceID
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, ids[0].String()+"/manifest-entry"):
			_, _ = w.Write([]byte(`{"serial":"0123aabbccddeeff27"}`))
		case strings.HasSuffix(r.URL.Path, ids[1].String()+"/manifest-entry"):
			_, _ = w.Write([]byte(`{}`))
		case strings.HasSuffix(r.URL.Path, "/manifest-entry"):
			refuse(http.StatusNotFound, joinery.CodeNotFound)(w)
		default:
			var in client.OwnerTokensRequest
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				t.Error(err)
			}
			var out client.OwnerTokens
			for i, d := range in.Devices {
				read = append(read, d.Device)
				out.Results = append(out.Results, client.LabelToken{Index: i, Device: d.Device, OwnerToken: tokenStandIn})
			}
			_ = json.NewEncoder(w).Encode(out)
		}
	}))
	defer s.Close()
	api, err := client.New(client.Options{Server: s.URL, APIKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	list := func(yield func(wanted, error) bool) {
		for i, id := range ids {
			if !yield(wanted{ref: client.DeviceRef{Device: id}, line: i + 1, where: "x"}, nil) {
				return
			}
		}
	}
	small := errors.New("too small for a serial number")
	job := &labelJob{api: api, most: 3, check: func(l tr005.Label) error {
		if l.Serial != "" {
			return small
		}
		return nil
	}}
	if err := job.run(t.Context(), list, func(tr005.Label) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(read, ids[1:]) || job.made != 2 || len(job.refused) != 1 || job.refused[0].Reason != small.Error() || job.refused[0].Line != 1 || job.refused[0].Device != ids[0] {
		t.Errorf("read %v of %v; refused %+v", read, ids, job.refused)
	}

	// Nor is one read for which the sheet has no room.
	read = nil
	full := &labelJob{api: api, most: 1, check: func(tr005.Label) error { return nil }}
	if err := full.run(t.Context(), list, func(tr005.Label) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if len(read) != 1 || len(full.refused) != 2 || full.refused[0].Reason != label.ErrFull.Error() {
		t.Errorf("read %v; refused %+v", read, full.refused)
	}
}
