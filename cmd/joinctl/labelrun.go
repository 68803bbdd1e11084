package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/label"
	"joinery/lorawan"
	"joinery/tr005"
)

// labelJob makes the labels of many devices.
type labelJob struct {
	a     *app
	api   *client.Client
	style labelStyle
	// check tells whether a label could be made. It is asked with what is known
	// before the tokens are read: each reading stands in the audit log for good.
	check func(tr005.Label) error
	// free tells whether a device's own file may be made; nil: there is none.
	free func(joinEUI, devEUI lorawan.EUI64) error
	// most is how many labels can be made; 0: any number.
	most int

	tried   map[tr005.Label]error // what check said
	made    int
	refused []labelRefusal
	said    time.Time
}

// labelRefusal is a device without a label. Its members are named as in the results
// of imports and batches.
type labelRefusal struct {
	Where   string           `json:"where"`           // for people: a line of a list, a row of an import, or the device as it was named
	Line    int              `json:"line,omitzero"`   // of the list
	Index   *uint64          `json:"index,omitempty"` // of the import's row, from 0
	Device  joinery.DeviceID `json:"device,omitzero"`
	JoinEUI lorawan.EUI64    `json:"joinEUI,omitzero"`
	DevEUI  lorawan.EUI64    `json:"devEUI,omitzero"`
	Code    joinery.Code     `json:"code,omitzero"` // where the server refused it
	Reason  string           `json:"reason"`

	place int
}

// picked makes the labels of what was picked.
func (j *labelJob) picked(ctx context.Context, pick *labelPick, args []string, take func(tr005.Label) error) error {
	devices, err := pick.devices(ctx, j.api, args)
	if err != nil {
		return err
	}
	return j.run(ctx, devices, take)
}

// run reads tokens, many in one request, and hands each label to take. What
// take refuses costs that device alone.
func (j *labelJob) run(ctx context.Context, devices iter.Seq2[wanted, error], take func(tr005.Label) error) error {
	j.said = time.Now()
	var waiting []wanted
	place := 0
	for w, err := range devices {
		if err != nil {
			return err
		}
		place++
		w.place = place
		if w.bad == nil {
			w.bad, err = j.foresee(ctx, w, len(waiting))
		}
		if err != nil {
			return err
		}
		if w.bad != nil {
			j.refuse(w, "", w.bad.Error())
			continue
		}
		if waiting = append(waiting, w); len(waiting) == client.MaxLabels {
			if err := j.take(ctx, waiting, take); err != nil {
				return err
			}
			waiting = waiting[:0]
		}
	}
	return j.take(ctx, waiting, take)
}

func (j *labelJob) take(ctx context.Context, devices []wanted, take func(tr005.Label) error) error {
	if len(devices) == 0 {
		return nil
	}
	var in client.OwnerTokensRequest
	for _, w := range devices {
		in.Devices = append(in.Devices, w.ref)
	}
	answer, err := j.api.OwnerTokens(ctx, in)
	if err != nil {
		return err
	}
	tokens := answer.Results
	if len(tokens) != len(devices) {
		return errors.New("the server's answer does not fit the request")
	}
	for i, t := range tokens {
		w := devices[i]
		if t.Code != "" {
			j.refuse(w, t.Code, t.Detail)
			continue
		}
		w.ref.JoinEUI, w.ref.DevEUI = t.JoinEUI, t.DevEUI
		if err := take(j.style.label(w, t)); err != nil {
			j.refuse(w, "", err.Error())
			continue
		}
		j.made++
	}
	if time.Since(j.said) >= sayEvery {
		j.said = time.Now()
		j.a.sayf("%d labels\n", j.made)
	}
	return nil
}

func (j *labelJob) refuse(w wanted, code joinery.Code, reason string) {
	j.refused = append(j.refused, labelRefusal{
		Where: w.where, Line: w.line, Index: w.index, Device: w.ref.Device, JoinEUI: w.ref.JoinEUI, DevEUI: w.ref.DevEUI,
		Code: code, Reason: reason, place: w.place,
	})
}

// Stand-ins for what comes with the token: of the same length, in the narrowest
// letters and digits, so that nothing is refused which could be made.
const (
	tokenStandIn  = "IIIIIIIIIIIII"
	serialStandIn = "000000000000000000"
)

// foresee gives why no label can be made of a device, nil if none is known before its
// token is read. ahead is how many wait for theirs. The second error is one that the
// next device would meet, too.
func (j *labelJob) foresee(ctx context.Context, w wanted, ahead int) (refused, err error) {
	if j.most > 0 && j.made+ahead >= j.most {
		return label.ErrFull, nil
	}
	if j.free != nil && !w.ref.DevEUI.IsZero() && !w.ref.JoinEUI.IsZero() {
		if err := j.free(w.ref.JoinEUI, w.ref.DevEUI); err != nil {
			return err, nil
		}
	}
	without, with := j.try(w, ""), j.try(w, serialStandIn)
	if without != nil || with == nil {
		return without, nil
	}
	// It depends on whether the device is an element with a serial number, which
	// anybody may read who may make its label.
	if w.ref.Device == 0 {
		return nil, nil
	}
	e, err := j.api.ManifestEntry(ctx, w.ref.Device)
	if _, refused := errors.AsType[*client.Problem](err); refused {
		return nil, nil // then the answer for its token says why
	}
	if err != nil {
		return nil, err
	}
	return j.try(w, e.Serial), nil
}

// try checks the label of a device as if its serial number were the one given; one
// in a list goes before it.
func (j *labelJob) try(w wanted, serial string) error {
	l := j.style.label(w, client.LabelToken{OwnerToken: tokenStandIn, Serial: serial})
	err, known := j.tried[l]
	if !known {
		err = j.check(l)
		if len(j.tried) >= maxTried || j.tried == nil {
			j.tried = map[tr005.Label]error{}
		}
		j.tried[l] = err
	}
	return err
}

// maxTried bounds what is remembered: a list may give each device a serial number.
const maxTried = 1000

// errNoLabel keeps a file without labels from being there.
var errNoLabel = errors.New("no label was made")

// write makes the file at path, or writes to standard output for "-". Where no
// label was made there is no file.
func (j *labelJob) write(path string, write func(io.Writer) error) error {
	if path == "-" {
		if f, ok := j.a.out.(*os.File); ok && isTerminal(f) {
			return usagef("--out -: this is a terminal; name a file, or give it to another program")
		}
		return write(j.a.out)
	}
	err := writeSecret(path, func(w io.Writer) error {
		if err := write(w); err != nil {
			return err
		}
		if j.made == 0 {
			return errNoLabel
		}
		return nil
	})
	if errors.Is(err, errNoLabel) {
		return nil // the report tells why
	}
	return err
}

// report says what became of the devices, and with errPartial that some have no
// label.
func (j *labelJob) report(file, where string) error {
	slices.SortFunc(j.refused, func(a, b labelRefusal) int { return cmp.Compare(a.place, b.place) })
	what := map[string]any{"labels": j.made, "file": file, "refused": append([]labelRefusal{}, j.refused...)}
	people := func() error {
		if j.made > 0 {
			if file != "-" {
				where += " in " + clean(file)
			}
			j.a.sayf("labels: %d%s, %d refused\n", j.made, where, len(j.refused))
		}
		for _, r := range j.refused {
			device := ""
			if !r.DevEUI.IsZero() {
				device = fmt.Sprintf(" (%s/%s)", r.JoinEUI, r.DevEUI)
			}
			j.a.sayf("%s: %s%s\n", clean(r.Where), clean(r.Reason), device)
		}
		return nil
	}
	var err error
	if file == "-" { // standard output is taken
		err = people()
	} else {
		err = j.a.show(what, people)
	}
	switch {
	case err != nil:
		return err
	case j.made == 0 && len(j.refused) == 0:
		return errors.New("there are no such devices, or all are claimed; no file was made. (An import that an older server made has no list: name its devices with --all or --from)")
	case j.made == 0:
		return errNoLabel
	case len(j.refused) > 0:
		return errPartial
	}
	return nil
}
