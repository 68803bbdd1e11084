package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"

	"joinery"
	"joinery/client"
	"joinery/lorawan"
	"joinery/tr005"

	"github.com/spf13/cobra"
)

const pickHelp = `

Which devices: DEVICE…, those of an import with --import, those of a list with --from, or
with --all every device of yours that is not claimed yet, in either case less with
--join-eui and --dev-eui. A list has one DEVICE a line, or it is a CSV whose first line
names its columns: DevEUI, JoinEUI and, where wanted, ProfileID (or vendor_id and
vendor_profile_id), Serial and Proprietary; others are passed over.`

// labelPick is the flags that say which devices.
type labelPick struct {
	from, imported, joinEUI, devEUI string
	all                             bool
}

func (p *labelPick) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.imported, "import", "", "the devices of an import, in its file's order: its id (imp_…)")
	f.StringVar(&p.from, "from", "", "the devices of this list")
	f.BoolVar(&p.all, "all", false, "every device that is not claimed yet")
	f.StringVar(&p.joinEUI, "join-eui", "", "with --all: only those with this JoinEUI; with --from: JoinEUI of rows that do not say")
	f.StringVar(&p.devEUI, "dev-eui", "", "with --all: only those whose DevEUI begins with these hexadecimal digits")
}

// wanted is a device whose label is wanted.
type wanted struct {
	ref   client.DeviceRef
	where string  // how people find it: a line of a list, or as it was named
	line  int     // of a list; 0: it stands in none
	index *uint64 // of the row of an import; nil: it was not picked by one
	bad   error   // why it names no device
	place int     // among all that are wanted

	// What a list says, before anything else that is known.
	profile             *tr005.ProfileID
	serial, proprietary string
}

// devices gives what was picked. An error is the last.
func (p *labelPick) devices(ctx context.Context, api *client.Client, args []string) (iter.Seq2[wanted, error], error) {
	ways := 0
	for _, given := range []bool{len(args) > 0, p.imported != "", p.from != "", p.all} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return nil, usagef("say which devices in one way: DEVICE…, --import, --from or --all")
	}
	claimed := false
	filter := client.DevicesQuery{DevEUI: p.devEUI, Claimed: &claimed, Limit: 500}
	if p.joinEUI != "" {
		var err error
		if filter.JoinEUI, err = lorawan.ParseEUI64(p.joinEUI); err != nil {
			return nil, usagef("--join-eui: %w", err)
		}
	}
	switch {
	case (p.joinEUI != "" && !p.all && p.from == "") || (p.devEUI != "" && !p.all):
		return nil, usagef("--dev-eui goes with --all, and --join-eui with --all or --from")
	case p.imported != "":
		id, err := joinery.ParseImportID(p.imported)
		if err != nil {
			return nil, usagef("--import: %w", err)
		}
		return importedDevices(ctx, api, id), nil
	case p.from != "":
		return listedDevices(ctx, api, p.from, filter.JoinEUI), nil
	case p.all:
		return unclaimedDevices(ctx, api, filter), nil
	}
	return namedDevices(ctx, api, args), nil
}

func namedDevices(ctx context.Context, api *client.Client, args []string) iter.Seq2[wanted, error] {
	return func(yield func(wanted, error) bool) {
		for _, arg := range args {
			d, err := findDevice(ctx, api, arg)
			if !yield(wanted{ref: refOf(d), where: arg}, err) || err != nil {
				return
			}
		}
	}
}

// refOf names a device by all that is known of it.
func refOf(d client.Device) client.DeviceRef {
	return client.DeviceRef{Device: d.ID, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI}
}

func importedDevices(ctx context.Context, api *client.Client, id joinery.ImportID) iter.Seq2[wanted, error] {
	return func(yield func(wanted, error) bool) {
		for d, err := range api.ImportedDevices(ctx, id, client.ImportedDevicesQuery{Limit: 500}) {
			if !yield(wanted{ref: client.DeviceRef{Device: d.Device}, where: fmt.Sprintf("row %d", d.Index+1), index: &d.Index}, err) {
				return
			}
		}
	}
}

func unclaimedDevices(ctx context.Context, api *client.Client, filter client.DevicesQuery) iter.Seq2[wanted, error] {
	return func(yield func(wanted, error) bool) {
		for d, err := range api.Devices(ctx, filter) {
			if !yield(wanted{ref: refOf(d), where: deviceName(d)}, err) {
				return
			}
		}
	}
}

// listedDevices reads a list; joinEUI is that of rows that do not say.
func listedDevices(ctx context.Context, api *client.Client, path string, joinEUI lorawan.EUI64) iter.Seq2[wanted, error] {
	return func(yield func(wanted, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(wanted{}, err)
			return
		}
		defer func() { _ = f.Close() }()
		for w, err := range labelList(f, joinEUI) {
			// A DevEUI alone may name one device all the same.
			if err == nil && w.bad == nil && w.ref.Device == 0 && w.ref.JoinEUI.IsZero() {
				var d client.Device
				if d, err = findDevice(ctx, api, w.ref.DevEUI.String()); err == nil {
					w.ref = refOf(d)
				} else if !errors.Is(err, client.ErrUnreachable) {
					w.bad, err = err, nil
				}
			}
			if !yield(w, err) || err != nil {
				return
			}
		}
	}
}

// maxListLine bounds a line of a list.
const maxListLine = 64 << 10

// labelList reads a list: a CSV, or one device a line. Errors repeat nothing of
// it.
func labelList(in io.Reader, joinEUI lorawan.EUI64) iter.Seq2[wanted, error] {
	return func(yield func(wanted, error) bool) {
		r := bufio.NewReaderSize(in, maxListLine)
		head, err := r.Peek(maxListLine)
		if err != nil && !errors.Is(err, io.EOF) {
			yield(wanted{}, fmt.Errorf("list: %w", err))
			return
		}
		if bytes.HasPrefix(head, []byte("\xEF\xBB\xBF")) {
			_, _ = r.Discard(3) // it was just seen
			head = head[3:]
		}
		first, _, _ := bytes.Cut(head, []byte("\n"))
		columns, err := listColumns(string(first))
		switch {
		case err != nil:
			yield(wanted{}, err)
		case columns == nil:
			plainList(r, joinEUI, yield)
		default:
			columns.read(r, joinEUI, yield)
		}
	}
}

// plainList reads one device a line.
func plainList(in io.Reader, joinEUI lorawan.EUI64, yield func(wanted, error) bool) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxListLine)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		w := wanted{where: fmt.Sprintf("line %d", n), line: n}
		w.ref, w.bad = deviceRef(text)
		if w.ref.JoinEUI.IsZero() {
			w.ref.JoinEUI = joinEUI
		}
		if !yield(w, nil) {
			return
		}
	}
	if err := lines.Err(); err != nil {
		yield(wanted{}, fmt.Errorf("list: %w", err))
	}
}

// deviceRef reads a device without asking the server.
func deviceRef(text string) (ref client.DeviceRef, err error) {
	if strings.HasPrefix(text, "dev_") {
		ref.Device, err = joinery.ParseDeviceID(text)
		return ref, err
	}
	f, err := deviceFilter(text)
	if err != nil {
		return ref, err
	}
	ref.JoinEUI = f.JoinEUI
	ref.DevEUI, err = lorawan.ParseEUI64(f.DevEUI)
	return ref, err
}

// labelColumns tells where the columns of a CSV are; -1 for one that is absent.
type labelColumns struct {
	divider                                                              rune
	devEUI, joinEUI, profile, vendor, vendorProfile, serial, proprietary int
}

// listColumns reads the first line of a list; nil where it names no columns.
func listColumns(line string) (*labelColumns, error) {
	line = strings.TrimRight(line, "\r")
	if strings.HasPrefix(line, "[") || strings.HasPrefix(line, "{") {
		return nil, usagef("--from: this is JSON, and no list; the devices of what was imported are named with --import")
	}
	c := &labelColumns{divider: ',', devEUI: -1, joinEUI: -1, profile: -1, vendor: -1, vendorProfile: -1, serial: -1, proprietary: -1}
	if strings.Count(line, ";") > strings.Count(line, ",") {
		c.divider = ';'
	}
	places := map[string]*int{
		"deveui": &c.devEUI, "joineui": &c.joinEUI, "appeui": &c.joinEUI, "profileid": &c.profile, "vendorid": &c.vendor,
		"vendorprofileid": &c.vendorProfile, "serial": &c.serial, "serialnumber": &c.serial, "proprietary": &c.proprietary,
	}
	for i, name := range strings.Split(line, string(c.divider)) {
		name = strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "", `"`, "").Replace(name))
		if strings.HasSuffix(name, "key") {
			return nil, usagef("--from: column %d holds keys, which labels have no use for; name the import with --import, or give a list without them", i+1)
		}
		if at := places[name]; at != nil && *at < 0 {
			*at = i
		}
	}
	if c.devEUI < 0 {
		return nil, nil
	}
	return c, nil
}

func (c *labelColumns) read(in io.Reader, joinEUI lorawan.EUI64, yield func(wanted, error) bool) {
	r := csv.NewReader(in)
	r.Comma, r.FieldsPerRecord, r.ReuseRecord = c.divider, -1, true
	for header := true; ; header = false {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			yield(wanted{}, fmt.Errorf("list: %w", err))
			return
		}
		if header {
			continue
		}
		line, _ := r.FieldPos(0)
		w := wanted{where: fmt.Sprintf("line %d", line), line: line}
		w.bad = c.row(&w, fields, joinEUI)
		if !yield(w, nil) {
			return
		}
	}
}

// row reads one row into w.
func (c *labelColumns) row(w *wanted, fields []string, joinEUI lorawan.EUI64) (err error) {
	field := func(i int) string {
		if i < 0 || i >= len(fields) {
			return ""
		}
		return strings.TrimSpace(fields[i])
	}
	if w.ref.DevEUI, err = lorawan.ParseEUI64(field(c.devEUI)); err != nil {
		return fmt.Errorf("DevEUI: %w", err)
	}
	w.ref.JoinEUI = joinEUI
	if text := field(c.joinEUI); text != "" {
		if w.ref.JoinEUI, err = lorawan.ParseEUI64(text); err != nil {
			return fmt.Errorf("JoinEUI: %w", err)
		}
	}
	profile := field(c.profile)
	if vendor := field(c.vendor); profile == "" && vendor != "" {
		profile = padded(vendor) + padded(field(c.vendorProfile))
	}
	if profile != "" {
		p, err := tr005.ParseProfileID(profile)
		if err != nil {
			return err
		}
		w.profile = &p
	}
	w.serial, w.proprietary = field(c.serial), field(c.proprietary)
	return nil
}

// padded gives a hexadecimal number of at most four digits with all of them.
func padded(s string) string {
	return strings.Repeat("0", max(0, 4-len(s))) + s
}
