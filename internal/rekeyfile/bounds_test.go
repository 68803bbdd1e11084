package rekeyfile_test

import (
	"encoding/json"
	"errors"
	"runtime"
	"strings"
	"testing"

	"joinery/internal/rekeyfile"
)

// What a file has too much of is found while it is read, not after: a file of some
// mebibytes takes no hundreds of them. Within the bounds it is read as strictly as ever.
func TestBounds(t *testing.T) {
	sign := signer(t)
	open := func(format, payload string, to any) error {
		t.Helper()
		file, err := rekeyfile.Sign(format, json.RawMessage(payload), func(content []byte) ([]byte, []byte, error) {
			return sign(content)
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = rekeyfile.Open(file, format, nil, to)
		return err
	}
	list := func(item string, n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + "]"
	}
	for name, x := range map[string]struct {
		format, payload string
		to              any
		want            error
	}{
		"devices":           {rekeyfile.FormatHandover, `{"devices":` + list("{}", 200) + `}`, &rekeyfile.Handover{}, nil},
		"null":              {rekeyfile.FormatHandover, `{"devices":null}`, &rekeyfile.Handover{}, nil},
		"no list":           {rekeyfile.FormatHandover, `{"devices":{}}`, &rekeyfile.Handover{}, rekeyfile.ErrFormat},
		"a device too many": {rekeyfile.FormatHandover, `{"devices":` + list("{}", 201) + `}`, &rekeyfile.Handover{}, rekeyfile.ErrTooMany},
		"an unknown member": {rekeyfile.FormatHandover, `{"devices":[{"x":1}]}`, &rekeyfile.Handover{}, rekeyfile.ErrFormat},
		"one in a list":     {rekeyfile.FormatHandover, `{"devices":[{"others":[{"x":1}]}]}`, &rekeyfile.Handover{}, rekeyfile.ErrFormat},
		"very many devices": {rekeyfile.FormatHandover, `{"devices":` + list("{}", 1<<18) + `}`, &rekeyfile.Handover{}, rekeyfile.ErrTooMany},
		"key sets":          {rekeyfile.FormatHandover, `{"devices":` + list(`{"others":`+list("{}", 16)+`}`, 200) + `}`, &rekeyfile.Handover{}, nil},
		"key sets of one":   {rekeyfile.FormatHandover, `{"devices":[{"others":` + list("{}", 1<<18) + `}]}`, &rekeyfile.Handover{}, rekeyfile.ErrTooMany},
		"times of one":      {rekeyfile.FormatHandover, `{"devices":[{"exposure":{"times":` + list("{}", 1<<18) + `}}]}`, &rekeyfile.Handover{}, rekeyfile.ErrTooMany},
		"times of several":  {rekeyfile.FormatHandover, `{"devices":` + list(`{"exposure":{"times":`+list("{}", 1000)+`}}`, 40) + `}`, &rekeyfile.Handover{}, rekeyfile.ErrTooMany},
		"times":             {rekeyfile.FormatHandover, `{"devices":[{"exposure":{"times":` + list("{}", 1000) + `}}]}`, &rekeyfile.Handover{}, nil},
		"former JoinEUIs":   {rekeyfile.FormatHandover, `{"devices":[{"row":{"former":` + list("{}", 1<<18) + `}}]}`, &rekeyfile.Handover{}, rekeyfile.ErrTooMany},
		"orders":            {rekeyfile.FormatTicket, `{"devices":` + list("{}", 1<<18) + `}`, &rekeyfile.Ticket{}, rekeyfile.ErrTooMany},
		"joins":             {rekeyfile.FormatReceipt, `{"joins":` + list("{}", 1<<18) + `}`, &rekeyfile.Receipt{}, rekeyfile.ErrTooMany},
		"told and joins":    {rekeyfile.FormatReceipt, `{"told":` + list("{}", 101) + `,"joins":` + list("{}", 100) + `}`, &rekeyfile.Receipt{}, rekeyfile.ErrTooMany},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := open(x.format, x.payload, x.to)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 { // the file itself several times over
			t.Errorf("%s took %d bytes", name, n)
		}
	}
	answer := `{"format":"joinery-rekey-offered/1","results":` + list("{}", 201) + `}`
	if _, err := rekeyfile.ReadOffered([]byte(answer)); !errors.Is(err, rekeyfile.ErrFormat) {
		t.Errorf("an answer with too many results: %v", err)
	}
}
