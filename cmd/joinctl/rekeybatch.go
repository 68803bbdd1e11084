package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/rekeyfile"

	"github.com/spf13/cobra"
)

// rekeySelection is which devices a command of rekeying is about: those that are
// named, or many.
type rekeySelection struct {
	file, batch             string
	all                     bool
	joinEUI, devEUI, status string
}

// register adds the flags; with batches also that of the devices of a batch.
func (s *rekeySelection) register(c *cobra.Command, batches bool) {
	f := c.Flags()
	f.StringVar(&s.file, "file", "", "file with a device a line: JOINEUI/DEVEUI, DEVEUI or dev_…; - for standard input")
	f.BoolVar(&s.all, "all", false, "all devices of the organisation")
	name := "join-eui"
	if !batches { // where that flag is what the devices are told
		name = "from-join-eui"
	}
	f.StringVar(&s.joinEUI, name, "", "with --all: only devices with this JoinEUI")
	f.StringVar(&s.devEUI, "dev-eui", "", "with --all: only devices whose DevEUI begins so")
	f.StringVar(&s.status, "status", "", "with --all: only devices that stand so: active, unbound or suspended")
	if batches {
		f.StringVar(&s.batch, "batch", "", "the devices that a batch armed: rkb_…")
	}
}

const rekeyManyHelp = `

DEVICE may be several. Many devices are those in a file (--file, one a line), all of
the organisation (--all, which --dev-eui, --status and a JoinEUI narrow), or those that
a batch armed (--batch). One that cannot be done keeps no other out: each is told with
its reason, and the exit code is 3.`

// many tells whether devices are selected, and not named.
func (s *rekeySelection) many() bool { return s.file != "" || s.all || s.batch != "" }

// check refuses what selects nothing, or in two ways.
func (s *rekeySelection) check(args []string) error {
	narrowed := s.joinEUI != "" || s.devEUI != "" || s.status != ""
	if given := boolToInt(len(args) > 0) + boolToInt(s.file != "") + boolToInt(s.all) + boolToInt(s.batch != ""); given != 1 || narrowed && !s.all {
		return usagef("say which devices: name them, or --file, or --all (which the other flags narrow), or --batch where there is one")
	}
	return nil
}

// selection is --all for the API.
func (s *rekeySelection) selection() (*client.ExportSelection, error) {
	q := client.ExportSelection{DevEUI: s.devEUI, Status: s.status}
	if s.joinEUI == "" {
		return &q, nil
	}
	eui, err := parseEUIFlag("JoinEUI", s.joinEUI)
	q.JoinEUI = eui
	return &q, err
}

// picked is one device of a selection; err is about it alone.
type picked struct {
	name  string
	id    joinery.DeviceID
	order joinery.RekeyID // of a batch: what it gave the device
	err   error
}

// devices gives the devices one by one. An error ends them.
func (a *app) pick(ctx context.Context, api *client.Client, s *rekeySelection, args []string) iter.Seq2[picked, error] {
	return func(yield func(picked, error) bool) {
		var stop error // of yield, or of reading
		found := func(arg string) error {
			p := picked{name: arg}
			if p.id, p.err = joinery.ParseDeviceID(arg); p.err != nil {
				var d client.Device
				d, p.err = findDevice(ctx, api, arg)
				p.id = d.ID
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !yield(p, nil) {
				return errStopped
			}
			return nil
		}
		switch {
		case s.file != "":
			stop = a.eachLine(s.file, found)
		case s.all:
			q, err := s.selection()
			stop = err
			if err != nil {
				break
			}
			for d, err := range api.Devices(ctx, client.DevicesQuery{JoinEUI: q.JoinEUI, DevEUI: q.DevEUI, Status: q.Status}) {
				if err != nil {
					stop = err
					break
				}
				if !yield(picked{name: deviceName(d), id: d.ID}, nil) {
					return
				}
			}
		case s.batch != "":
			stop = a.pickBatch(ctx, api, s.batch, yield)
		default:
			for _, arg := range args {
				if stop = found(arg); stop != nil {
					break
				}
			}
		}
		if stop != nil && !errors.Is(stop, errStopped) {
			yield(picked{}, stop)
		}
	}
}

// errStopped says that nobody wants more devices.
var errStopped = errors.New("stopped")

func (a *app) pickBatch(ctx context.Context, api *client.Client, text string, yield func(picked, error) bool) error {
	id, err := joinery.ParseRekeyBatchID(text)
	if err != nil {
		return usagef("--batch: %w", err)
	}
	for i, err := range api.RekeyBatchDevices(ctx, id, client.RekeyBatchDevicesQuery{}) {
		if err != nil {
			return err
		}
		if i.Order != 0 && !yield(picked{name: i.JoinEUI.String() + "/" + i.DevEUI.String(), id: i.Device, order: i.Order}, nil) {
			return errStopped
		}
	}
	return nil
}

// rekeyResult is what became of one device, for programs.
type rekeyResult struct {
	Device joinery.DeviceID `json:"device,omitzero"`
	Name   string           `json:"name"`
	Status string           `json:"status"`
	Reason string           `json:"reason,omitzero"`
}

// rekeyEach does something to each device of a selection, going on after an error.
func (a *app) rekeyEach(ctx context.Context, api *client.Client, s *rekeySelection, args []string, done string, do func(picked) error) error {
	if err := s.check(args); err != nil {
		return err
	}
	well, failed := 0, 0
	results := func(yield func(rekeyResult, error) bool) {
		for p, err := range a.pick(ctx, api, s, args) {
			if err != nil {
				yield(rekeyResult{}, err)
				return
			}
			if p.err == nil {
				p.err = do(p)
			}
			r := rekeyResult{Device: p.id, Name: p.name, Status: "done"}
			if p.err != nil {
				failed++
				r.Status, r.Reason = "failed", p.err.Error()
				a.sayf("%s: %s\n", clean(p.name), clean(p.err.Error()))
			} else {
				well++
			}
			if !yield(r, nil) {
				return
			}
		}
	}
	var err error
	if a.flags.json {
		err = writeArray(a.out, results)
	} else {
		for _, wrong := range results {
			err = errors.Join(err, wrong)
		}
	}
	if err != nil {
		return fmt.Errorf("%w; give the same command again: what is done stays done", err)
	}
	a.sayf("%d devices: %s; %d failed\n", well, done, failed)
	if failed > 0 {
		return errPartial
	}
	return nil
}

// partDevices is the most devices of one part of a file.
const partDevices = 200

// partFile is a file of many devices on its way, part by part, each signed by itself.
type partFile struct {
	a        *app
	out      io.Writer
	leaveOut bool // those that cannot go
	sign     func(ids []joinery.DeviceID, leaveOut bool) (client.RekeyFile, error)
	ids      []joinery.DeviceID // of the next part
	names    map[joinery.DeviceID]string
	devices  int // in the file
	leftOut  int
	said     time.Time
}

// rekeyParts writes such a file: sign makes a part. What is named is written whole or
// not at all; of a selection those that cannot go are left out. The file is there once
// it is whole.
func (a *app) rekeyParts(ctx context.Context, api *client.Client, s *rekeySelection, args []string, path string,
	sign func(ids []joinery.DeviceID, leaveOut bool) (client.RekeyFile, error)) (devices, leftOut int, err error) {
	if err := s.check(args); err != nil {
		return 0, 0, err
	}
	out, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // for us alone to read
	if err != nil {
		return 0, 0, err
	}
	p := partFile{a: a, out: out, leaveOut: s.many(), sign: sign, names: map[joinery.DeviceID]string{}, said: time.Now()}
	err = p.write(a.pick(ctx, api, s, args))
	if err == nil && p.devices == 0 {
		err = errors.New("no device is left; there is no file")
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(out.Name(), path)
	}
	if err != nil {
		return p.devices, p.leftOut, errors.Join(err, os.Remove(out.Name()))
	}
	return p.devices, p.leftOut, nil
}

// write writes parts of devices until there are no more.
func (p *partFile) write(devices iter.Seq2[picked, error]) error {
	for d, err := range devices {
		switch _, twice := p.names[d.id]; {
		case err != nil:
			return err
		case d.err != nil && !p.leaveOut:
			return d.err
		case d.err != nil:
			p.refuse(d.name, d.err.Error())
			continue
		case twice:
			continue
		}
		p.names[d.id], p.ids = d.name, append(p.ids, d.id)
		if len(p.ids) == partDevices {
			if err := p.flush(); err != nil {
				return err
			}
		}
	}
	return p.flush()
}

func (p *partFile) refuse(name, why string) {
	p.leftOut++
	p.a.sayf("%s: %s\n", clean(name), clean(why))
}

// flush writes the part of the devices that wait.
func (p *partFile) flush() error {
	if len(p.ids) == 0 {
		return nil
	}
	err := p.part(p.ids)
	p.ids = p.ids[:0]
	clear(p.names)
	if err == nil && time.Since(p.said) >= sayEvery {
		p.said = time.Now()
		p.a.sayf("%d devices are in the file\n", p.devices)
	}
	return err
}

// part writes a part, or two where these devices have too many key sets for one.
func (p *partFile) part(ids []joinery.DeviceID) error {
	f, err := p.sign(ids, p.leaveOut)
	if problem, ok := errors.AsType[*client.Problem](err); ok && problem.Code == joinery.CodeTooLarge && len(ids) > 1 {
		half := len(ids) / 2
		if err := p.part(ids[:half]); err != nil {
			return err
		}
		return p.part(ids[half:])
	}
	if err != nil {
		return err
	}
	for _, l := range f.LeftOut {
		p.refuse(p.names[l.Device], l.Reason)
	}
	if len(f.File) == 0 {
		return nil
	}
	p.devices += f.Devices
	_, err = p.out.Write(append(f.File, '\n'))
	return err
}

// wroteParts says what is in a file of many devices.
func (a *app) wroteParts(path string, devices, leftOut int, format string, args ...any) error {
	if err := a.done(map[string]any{"file": path, "devices": devices, "leftOut": leftOut}, format, args...); err != nil || leftOut == 0 {
		return err
	}
	a.sayf("%d devices were left out\n", leftOut)
	return errPartial
}

// eachPart calls do with each part of a file of rekeying.
func eachPart(path string, do func(part []byte) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	n := 0
	for part, err := range rekeyfile.Parts(f) {
		n++
		if err == nil {
			err = do(part)
		}
		if err != nil && n > 1 {
			return fmt.Errorf("%s, part %d: %w", path, n, err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// armJob is an order to rekey many devices on its way.
type armJob struct {
	a       *app
	api     *client.Client
	in      client.NewRekeyBatch
	batch   client.RekeyBatch
	names   []string // of in.Devices
	failed  int
	refused []client.RekeyBatchItem // of the lines of a file, for programs
}

// armMany names devices in as many requests as it takes, and waits until the server
// has armed them.
func (a *app) armMany(ctx context.Context, api *client.Client, in client.NewRekeyOrder, s *rekeySelection, args []string) error {
	j := armJob{a: a, api: api, in: client.NewRekeyBatch{NewJoinEUI: in.NewJoinEUI, To: in.To, Recipient: in.Recipient, Days: in.Days, RekeyKey: in.RekeyKey}}
	add := func(arg string) error { return j.add(ctx, arg) }
	var err error
	switch {
	case s.all:
		if j.in.Select, err = s.selection(); err == nil {
			j.batch, err = api.RequestRekeyBatch(ctx, j.in)
		}
	case s.file != "":
		if err = a.eachLine(s.file, add); err == nil {
			err = j.send(ctx, false)
		}
	default:
		for _, arg := range args {
			err = errors.Join(err, add(arg))
		}
		if err == nil {
			err = j.send(ctx, false)
		}
	}
	if err != nil {
		return err
	}
	return j.finish(ctx)
}

// add names one device more. A line that names none fails by itself.
func (j *armJob) add(ctx context.Context, arg string) error {
	ref, err := deviceRefOf(ctx, j.api, arg)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		j.refuse(arg, err.Error())
		return nil
	}
	j.in.Devices, j.names = append(j.in.Devices, ref), append(j.names, arg)
	if len(j.in.Devices) < client.MaxRekeyRefs {
		return nil
	}
	return j.send(ctx, true)
}

func (j *armJob) refuse(name, why string) {
	j.failed++
	j.a.sayf("%s: %s\n", clean(name), clean(why))
	j.refused = append(j.refused, client.RekeyBatchItem{Index: -1, State: "failed", Code: joinery.CodeNotFound, Reason: name + ": " + why})
}

// send gives the server the devices that were named since.
func (j *armJob) send(ctx context.Context, more bool) (err error) {
	var b client.RekeyBatch
	if j.batch.ID == 0 {
		j.in.More = more
		b, err = j.api.RequestRekeyBatch(ctx, j.in)
	} else {
		b, err = j.api.AddRekeyBatchDevices(ctx, j.batch.ID, client.MoreRekeyDevices{Devices: j.in.Devices, More: more})
	}
	if err != nil {
		return err
	}
	j.batch = b
	for _, place := range b.Absent {
		if place >= 0 && place < len(j.names) {
			j.refuse(j.names[place], "your organisation has no such device")
		}
	}
	if more {
		j.a.sayf("%d devices named\n", b.Devices)
	}
	j.in.Devices, j.names = []client.DeviceRef{}, j.names[:0]
	return nil
}

// finish waits for a batch that needs nobody else, and tells what became of it.
func (j *armJob) finish(ctx context.Context) error {
	a, b := j.a, j.batch
	if b.State == "requested" {
		err := a.done(b, "%d devices wait for another admin: joinctl rekey batch approve %s --join-eui %s --thumbprint %s --digest %s%s",
			b.Devices, b.ID, b.NewJoinEUI, b.Thumbprint, b.Digest, map[bool]string{true: " --rekeying-key"}[b.RekeyKey])
		if err == nil && j.failed > 0 {
			err = errPartial
		}
		return err
	}
	b, err := a.awaitBatch(ctx, j.api, b)
	if err != nil {
		return err
	}
	return a.tellBatch(ctx, j.api, b, j.failed, j.refused)
}

// awaitBatch waits until the server is done with a batch.
func (a *app) awaitBatch(ctx context.Context, api *client.Client, b client.RekeyBatch) (client.RekeyBatch, error) {
	said := time.Now()
	for pause := 20 * time.Millisecond; b.State == "approved"; pause = min(2*pause, time.Second) {
		select {
		case <-ctx.Done():
			return b, fmt.Errorf("%w; the server goes on with it: joinctl rekey batch show %s", ctx.Err(), b.ID)
		case <-time.After(pause):
		}
		var err error
		if b, err = api.RekeyBatch(ctx, b.ID); err != nil {
			return b, fmt.Errorf("%w; the server goes on with it: joinctl rekey batch show %s", err, b.ID)
		}
		if time.Since(said) >= sayEvery {
			said = time.Now()
			a.sayf("%d of %d devices are done\n", b.Armed+b.Failed, b.Devices)
		}
	}
	return b, nil
}

// tellBatch tells what became of each device of a batch: to people of those that
// failed. others failed before they were in it.
func (a *app) tellBatch(ctx context.Context, api *client.Client, b client.RekeyBatch, others int, refused []client.RekeyBatchItem) error {
	results := func(yield func(client.RekeyBatchItem, error) bool) {
		for _, i := range refused {
			if !yield(i, nil) {
				return
			}
		}
		for i, err := range api.RekeyBatchDevices(ctx, b.ID, client.RekeyBatchDevicesQuery{}) {
			if !yield(i, err) || err != nil {
				return
			}
		}
	}
	switch {
	case a.flags.json:
		if err := writeArray(a.out, results); err != nil {
			return err
		}
	case b.Failed > 0:
		for i, err := range results {
			if err != nil {
				return err
			}
			if i.Index >= 0 && i.State == "failed" {
				a.sayf("%s/%s: %s\n", i.JoinEUI, i.DevEUI, clean(i.Reason))
			}
		}
	}
	a.sayf("%s is %s: %d of %d devices are armed for %s at %s, %d failed; 'joinctl rekey handover --batch %s' makes the file where this server does not hand over by itself\n",
		b.ID, b.State, b.Armed, b.Devices, b.NewJoinEUI, clean(b.To), int(b.Failed)+others, b.ID)
	if int(b.Failed)+others > 0 {
		return errPartial
	}
	return nil
}
