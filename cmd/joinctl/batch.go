package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"joinery"
	"joinery/client"

	"github.com/spf13/cobra"
)

// How many items go in one request. Where items issue tokens, a connection that
// breaks loses the tokens of no more than that.
const (
	itemsAtOnce  = 500
	tokensAtOnce = 50
)

func (a *app) batchCommand() *cobra.Command {
	var j batchJob
	var out string
	c := a.command(&cobra.Command{
		Use:   "batch FILE",
		Short: "Claim, bind, offer, accept, release: a file of devices at once",
		Long: `Do what a file says to many devices, row by row. The file is a CSV with a header
line, or has one JSON object a line, as the API's OwnershipAct. Columns, of which a row
needs those of its action:

  action        claim, release, offer, cancel, accept, regenerate-token, bind, unbind
  device        its id, or:
  devEUI        DevEUI, and joinEUI where several of your devices have it
  ownerToken    of a claim, from the label
  netID nsid asID appSKey clearNwkKeys locked    the binding of claim, accept, bind
  recipient     organisation of an offer
  expiresAt     end of an offer

--action and the flags of a binding stand for what no row says. Every row has its own
result; one that fails spoils no other. Results go to --results, or to standard output,
as CSV, or with --json as one object a line. They hold new owner tokens: a file is made
for you alone to read, and none that is there is overwritten. Results in CSV can be the
file of the next batch. When a run is cut off, run the same file again with another file
for the results: what was done is unchanged. Only of a release the new token is in no
second answer; the operator can regenerate it.

What releases a device or regenerates its token cannot be undone: a file with such rows
is done only with --yes, or after you were asked.

The exit code is 3 if rows failed.`,
		Example: `  joinctl batch claims.csv --action claim --net-id 000013 --as-id as.example.com --results claimed.csv
  joinctl batch handover.csv --action offer --to org_0005m2q8g3c0y --dry-run
  joinctl batch returns.csv --action release --yes --results tokens.csv
  joinctl batch devices.jsonl --json --results results.jsonl`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) (err error) {
		j.a, j.api = a, api
		if err := j.defaults(ctx); err != nil {
			return err
		}
		file, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		a.warnIfOpen(file, "batch")
		if err := j.confirm(file); err != nil {
			return err
		}
		j.progress = newProgress(a, file)
		rows, err := readBatch(j.progress)
		if err != nil {
			return err
		}
		results := a.out
		if out != "" {
			f, err := createSecret(out)
			if err != nil {
				return fmt.Errorf("results: %w", err)
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			results = f
		}
		j.report = newReport(results, a.flags.json)
		return j.run(ctx, rows)
	})
	f := c.Flags()
	f.StringVar(&j.action, "action", "", "what to do with rows that do not say")
	f.StringVar(&j.to, "to", "", "recipient of offers that do not say")
	f.BoolVar(&j.dryRun, "dry-run", false, "only say what would become of each row; wrong owner tokens count all the same")
	f.BoolVar(&j.yes, "yes", false, "release devices and regenerate tokens without being asked")
	f.StringVar(&out, "results", "", "write the results to this file, which must not be there")
	j.bind.register(c, "")
	return c
}

// batchJob is one batch on its way.
type batchJob struct {
	a          *app
	api        *client.Client
	action, to string
	bind       bindingFlags
	dryRun     bool
	yes        bool
	progress   *progress
	report     *batchReport

	binding   *client.NewBinding
	recipient joinery.OrgID
	items     []client.OwnershipAct
	lines     []int
	seen      uint64
	failed    int
}

// defaults reads the flags that stand for columns.
func (j *batchJob) defaults(ctx context.Context) (err error) {
	if j.action != "" && !slices.Contains(batchActions, j.action) {
		return usagef("--action: want one of %s", joined(batchActions))
	}
	if j.binding, err = j.bind.optional(); err != nil {
		return err
	}
	if j.to != "" {
		j.recipient, err = findOrganisation(ctx, j.api, j.to)
	}
	return err
}

var batchActions = []string{
	client.ActionClaim, client.ActionRelease, client.ActionOffer, client.ActionCancel,
	client.ActionAccept, client.ActionRegenerateToken, client.ActionBind, client.ActionUnbind,
}

// confirm stands before a file with rows that cannot be undone: it reads the file
// once to count them, so that none is half done when the first is met.
func (j *batchJob) confirm(file *os.File) error {
	if j.yes || j.dryRun {
		return nil
	}
	rows, err := readBatch(file)
	if err != nil {
		return err
	}
	n := 0
	for {
		item, _, err := rows.next()
		if _, bad := errors.AsType[*batchRowError](err); bad {
			continue
		}
		if err != nil {
			break // the end, or what run will say of the file in its turn
		}
		if final(cmp.Or(item.Action, j.action)) {
			n++
		}
	}
	if n > 0 {
		question := fmt.Sprintf("%d rows release a device or regenerate its owner token, which cannot be undone", n)
		if err := j.a.confirm(false, question, strconv.Itoa(n), "--yes, or --dry-run to see what would become of each row"); err != nil {
			return err
		}
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return usagef("%s cannot be read twice, as it must be to look for rows that cannot be undone: give a file on disk, or --yes", file.Name())
	}
	return nil
}

// final tells whether an action cannot be undone. Each issues an owner token, too.
func final(action string) bool {
	return action == client.ActionRelease || action == client.ActionRegenerateToken
}

func (j *batchJob) run(ctx context.Context, rows batchRows) error {
	j.progress.begin(0)
	defer j.progress.end()
	for {
		item, line, err := rows.next()
		if bad, ok := errors.AsType[*batchRowError](err); ok {
			// In order: what waits comes first.
			if err := j.send(ctx); err != nil {
				return err
			}
			if err := j.refuse(line, bad); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			sent := j.send(ctx)
			if errors.Is(err, io.EOF) && sent == nil {
				return j.end()
			}
			if errors.Is(err, io.EOF) {
				return sent
			}
			return errors.Join(fmt.Errorf("the file is broken behind line %d: %w", line, err), sent)
		}
		j.add(item, line)
		if len(j.items) >= j.atOnce() {
			if err := j.send(ctx); err != nil {
				return err
			}
		}
	}
}

func (j *batchJob) atOnce() int {
	if !j.dryRun && slices.ContainsFunc(j.items, func(i client.OwnershipAct) bool { return final(i.Action) }) {
		return tokensAtOnce
	}
	return itemsAtOnce
}

// add fills in what the row does not say.
func (j *batchJob) add(item client.OwnershipAct, line int) {
	if item.Action == "" {
		item.Action = j.action
	}
	if item.Action == client.ActionClaim && !item.DevEUI.IsZero() {
		item.Device = 0 // results of a batch before have it; a claim goes by the label
	}
	if item.Action == client.ActionOffer && item.Recipient == 0 {
		item.Recipient = j.recipient
	}
	binds := item.Action == client.ActionClaim || item.Action == client.ActionAccept || item.Action == client.ActionBind
	if binds && item.Binding == nil {
		item.Binding = j.binding
	}
	j.items, j.lines = append(j.items, item), append(j.lines, line)
}

// send gives what waits to the server and writes down what became of it. Rows that
// the server cannot read fail by themselves: the others are sent again without them,
// for a request of which a part cannot be read has done nothing.
func (j *batchJob) send(ctx context.Context) error {
	unread := map[int]string{} // by their places in j.items
	for len(unread) < len(j.items) {
		items, places := without(j.items, unread)
		out, err := j.api.ChangeOwnership(ctx, client.OwnershipBatch{Items: items, DryRun: j.dryRun})
		if wrong := unreadItems(err, places); len(wrong) > 0 {
			maps.Copy(unread, wrong)
			continue
		}
		if err == nil && len(out.Results) != len(items) {
			err = errors.New("the server answered with another number of results")
		}
		if err != nil {
			return fmt.Errorf("lines %d to %d: %w; run the file again: what is done stays done", j.lines[0], j.lines[len(j.lines)-1], err)
		}
		return j.told(out.Results, places, unread)
	}
	return j.told(nil, nil, unread)
}

// told writes down the results of the rows at places, and why those that could not
// be read failed, in the order of the file.
func (j *batchJob) told(results []client.OwnershipResult, places []int, unread map[int]string) error {
	for k, item := range j.items {
		r := client.OwnershipResult{Status: "failed", Code: joinery.CodeInvalid, Reason: unread[k]}
		if i, found := slices.BinarySearch(places, k); found {
			r = results[i]
		}
		r.Index = k
		if r.Status == "failed" {
			j.failed++
		}
		if err := j.report.write(batchResult{Line: j.lines[k], OwnershipResult: named(r, item)}); err != nil {
			return err
		}
	}
	j.seen += uint64(len(j.items))
	j.items, j.lines = j.items[:0], j.lines[:0]
	j.progress.at(j.seen)
	return j.report.flush()
}

// without gives the items that can be read, and their places among all.
func without(items []client.OwnershipAct, unread map[int]string) (rest []client.OwnershipAct, places []int) {
	for k, item := range items {
		if _, wrong := unread[k]; !wrong {
			rest, places = append(rest, item), append(places, k)
		}
	}
	return rest, places
}

// unreadItems gives the items that a refusal names, by their places, and what is
// wrong with each; none where it is about something else, too.
func unreadItems(err error, places []int) map[int]string {
	p, ok := errors.AsType[*client.Problem](err)
	if !ok || p.Code != joinery.CodeInvalid {
		return nil
	}
	wrong := map[int]string{}
	for _, f := range p.Errors {
		if f.Location == "" {
			continue // "and more": the next answer says what
		}
		place, member, _ := strings.Cut(strings.TrimPrefix(f.Location, "body.items["), "]")
		k, err := strconv.Atoi(place)
		if err != nil || k < 0 || k >= len(places) {
			return nil
		}
		if _, told := wrong[places[k]]; !told { // the first thing of each row will do
			wrong[places[k]] = strings.TrimPrefix(strings.TrimPrefix(member, ".")+": "+f.Message, ": ")
		}
	}
	return wrong
}

// named says of which device a result is where the server does not.
func named(r client.OwnershipResult, item client.OwnershipAct) client.OwnershipResult {
	if r.Device == 0 {
		r.Device, r.JoinEUI, r.DevEUI = item.Device, item.JoinEUI, item.DevEUI
	}
	return r
}

func (j *batchJob) refuse(line int, bad *batchRowError) error {
	j.failed++
	j.seen++
	return j.report.write(batchResult{Line: line, OwnershipResult: client.OwnershipResult{
		Status: "failed", Code: joinery.CodeInvalid, Reason: bad.Error(),
	}})
}

func (j *batchJob) end() error {
	if err := j.report.flush(); err != nil {
		return err
	}
	what := map[bool]string{false: "done", true: "nothing was changed; it would be"}[j.dryRun]
	j.a.sayf("%s: %d rows, %d of them failed\n", what, j.seen, j.failed)
	if j.failed > 0 {
		return errPartial
	}
	return nil
}

// batchResult is a result with the line of its row.
type batchResult struct {
	Line int `json:"line"`
	client.OwnershipResult
}

// batchReport writes results as they come.
type batchReport struct {
	csv  *csv.Writer
	json *json.Encoder
}

func newReport(w io.Writer, asJSON bool) *batchReport {
	if asJSON {
		return &batchReport{json: json.NewEncoder(w)}
	}
	r := &batchReport{csv: csv.NewWriter(w)}
	_ = r.csv.Write([]string{"line", "status", "device", "joinEUI", "devEUI", "ownerToken", "code", "reason"}) // flush says whether it went
	return r
}

func (r *batchReport) write(b batchResult) error {
	if r.json != nil {
		return r.json.Encode(b)
	}
	device, joinEUI, devEUI := "", "", ""
	if b.Device != 0 {
		device = b.Device.String()
	}
	if !b.JoinEUI.IsZero() {
		joinEUI = b.JoinEUI.String()
	}
	if !b.DevEUI.IsZero() {
		devEUI = b.DevEUI.String()
	}
	return r.csv.Write([]string{strconv.Itoa(b.Line), b.Status, device, joinEUI, devEUI, b.OwnerToken, string(b.Code), b.Reason})
}

func (r *batchReport) flush() error {
	if r.csv == nil {
		return nil
	}
	r.csv.Flush()
	return r.csv.Error()
}
