package fault

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"joinery/client"
	"joinery/internal/sim"
	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// P1 for imports: the server is killed again and again while joinctl imports a
// key list. Each run of joinctl goes on where the last one stood; what anybody
// was shown of the import stays, every device is there once, and joins.
func TestImportKilled(t *testing.T) {
	rows, kills := 1_500, 3
	if long() {
		rows, kills = 30_000, 40
	}
	f := newFleet(t, dose{devices: 1})
	var list bytes.Buffer
	factory := element.NewFactory(&list)
	joinEUI, firstDevEUI := lorawan.EUI64FromUint64(0x0200000000000100), uint64(0x0200_00EE_0000_0000)
	var some []*device.Device
	for n := range rows {
		e, err := factory.Make(joinEUI, lorawan.EUI64FromUint64(firstDevEUI+uint64(n)), lorawan.MAC1_0_4)
		ok(t, err)
		if n%(rows/10) == 0 {
			d, err := device.New(e, lorawan.MAC1_0_4, device.Options{})
			ok(t, err)
			some = append(some, d)
		}
	}
	path := f.server.Path("more.csv")
	ok(t, os.WriteFile(path, list.Bytes(), 0o600))
	run := func() error {
		_, err := f.server.Ctl(t.Context(), "", "import", "keys", path, "--bind-net-id", "000013", "--bind-as-id", "as.example.com")
		return err
	}
	shown := func() (n int) {
		for _, err := range f.api.Devices(t.Context(), client.DevicesQuery{DevEUI: "020000EE", Limit: 500}) {
			if err != nil {
				return 0
			}
			n++
		}
		return n
	}
	cut, before := 0, 0
	for range kills {
		ended := make(chan error, 1)
		go func() { ended <- run() }()
		time.Sleep(time.Duration(50+rand.IntN(200)) * time.Millisecond)
		before = max(before, shown())
		ok(t, f.server.Kill())
		if err := <-ended; err != nil {
			if _, exited := errors.AsType[*exec.ExitError](err); !exited {
				t.Fatal(err)
			}
			cut++
		}
		f.fsck()
		ok(t, f.server.Start(t.Context()))
		now := shown()
		if now < before {
			t.Errorf("%d devices were there before the kill, %d are after it", before, now)
		}
		before = now
	}
	ok(t, run())
	if n := shown(); n != rows {
		t.Errorf("%d devices of %d were imported", n, rows)
	}
	for _, d := range some {
		r, err := f.ns.Join(t.Context(), d, sim.JoinOptions{})
		ok(t, err)
		ok(t, r.Err())
	}
	ok(t, f.server.Kill())
	f.fsck()
	t.Logf("%d rows, %d kills, of which %d cut an import off", rows, kills, cut)
}
