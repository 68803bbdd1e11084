package main

import (
	"context"
	"fmt"
	"strings"

	"joinery/client"

	"github.com/spf13/cobra"
)

func (a *app) deviceExplainCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "explain DEVICE",
		Short: "Say why a device does not join",
		Long: `Say why a device does not join: what was refused, by which network and for which
reason, what the last request said, what the state was that decided, and what to do.
Where nothing was refused it says how the device stands and when it joined last.

You see what was refused while the device was yours. Of a device 64 rows are kept,
each a network and a reason; the oldest goes first.` + deviceHelp,
		Example: `  joinctl explain 0004A310001AA90A
  joinctl device explain 0004A310001AA90A
  joinctl device explain 70B3D57ED0000000/0004A310001AA90A --json | jq -r '.refusals[0].what'`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		d, err := findDevice(ctx, api, args[0])
		if err != nil {
			return err
		}
		e, err := api.ExplainDevice(ctx, d.ID)
		if err != nil {
			return err
		}
		return a.show(e, func() error { return a.explainDevice(e) })
	})
}

func (a *app) explainDevice(e client.DeviceExplanation) error {
	if err := a.printf("%s, LoRaWAN %s\n\n", deviceName(e.Device), e.Device.MACVersion); err != nil {
		return err
	}
	for _, line := range e.Summary {
		if err := a.paragraph("", line); err != nil {
			return err
		}
	}
	if err := a.explainRefusals("Refused, the newest first:", e.Refusals); err != nil {
		return err
	}
	if err := a.explainJoins(e); err != nil {
		return err
	}
	return a.notKept(e.NotKept)
}

func (a *app) explainJoins(e client.DeviceExplanation) error {
	if len(e.Joins) == 0 {
		return nil
	}
	if err := a.printf("\nAccepted, the newest first:\n"); err != nil {
		return err
	}
	for _, j := range e.Joins {
		counter := "RJcount"
		if j.Type == "join" {
			counter = "DevNonce"
		}
		if err := a.printf("  %s  %s through network %s, %s %d, JoinNonce %d\n", when(j.At, "?"), j.Type, j.NetID, counter, j.Count, j.JoinNonce); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) explainRefusals(title string, refusals []client.Refusal) error {
	if len(refusals) == 0 {
		return nil
	}
	if err := a.printf("\n%s\n", title); err != nil {
		return err
	}
	for _, r := range refusals {
		if err := a.explainRefusal(r); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) explainRefusal(r client.Refusal) error {
	times := when(r.Last, "?")
	if r.Count > 1 {
		times = fmt.Sprintf("%s, %d times since %s", times, r.Count, when(r.First, "?"))
	}
	if err := a.printf("\n  %s  [%s]\n", times, clean(r.Reason)); err != nil {
		return err
	}
	for _, part := range []struct{ name, text string }{
		{"", r.What}, {"received: ", receivedText(r.Received)}, {"decided by: ", decidedText(r.Decided)}, {"to do: ", r.Remedy}, {"since then: ", r.Settled},
	} {
		if part.text == "" {
			continue
		}
		if err := a.paragraph("    ", part.name+part.text); err != nil {
			return err
		}
	}
	return nil
}

// receivedText names what a request said, as far as it said anything.
func receivedText(r client.Received) string {
	var list texts
	list.add("", r.Message)
	list.add("from ", r.SenderID)
	if !r.NSID.IsZero() {
		list.add("NSID ", r.NSID.String())
	}
	list.add("to ", r.ReceiverID)
	if !r.DevEUI.IsZero() {
		list.add("DevEUI ", r.DevEUI.String())
	}
	list.add("LoRaWAN ", r.MACVersion)
	switch {
	case r.Frame == "join":
		list.add("DevNonce ", fmt.Sprint(r.Count))
	case r.Frame != "":
		list.add(r.Frame+" RJcount ", fmt.Sprint(r.Count))
	}
	list.add("Backend Interfaces ", r.ProtocolVersion)
	if r.Message != "" {
		list.add("TransactionID ", fmt.Sprint(r.TransactionID))
	}
	return strings.Join(list, ", ")
}

// decidedText names the state that decided.
func decidedText(d *client.Decided) string {
	if d == nil {
		return ""
	}
	var list texts
	if d.Bound {
		list.add("bound to network ", d.NetID.String())
		if !d.NSID.IsZero() {
			list.add("NSID ", d.NSID.String())
		}
		list.add("AS-ID ", d.ASID)
	} else {
		list.add("", "bound to no network")
	}
	list.add("provisioned as LoRaWAN ", d.MACVersion)
	list.add("1.0.x served with ", d.Root10)
	list.add("service ended ", d.ServiceEnd)
	list.add("attested ", d.AttestLevel)
	list.add("wanted at least ", d.AttestWanted)
	if d.Next > 0 {
		list.add("next counter from ", fmt.Sprint(d.Next))
	}
	return strings.Join(list, ", ")
}

type texts []string

func (t *texts) add(name, value string) {
	if value != "" {
		*t = append(*t, name+value)
	}
}

func (a *app) notKept(n uint64) error {
	if n == 0 {
		return nil
	}
	return a.printf("\n%d more requests were refused since the server started, faster than they could be noted.\n", n)
}

// lineWidth is where paragraphs for people are broken.
const lineWidth = 100

// paragraph writes text in lines, each behind indent.
func (a *app) paragraph(indent, text string) error {
	line := indent
	for _, word := range strings.Fields(clean(text)) {
		if len(line)+1+len(word) > lineWidth && line != indent {
			if err := a.printf("%s\n", line); err != nil {
				return err
			}
			line = indent + "  "
		} else if line != indent {
			line += " "
		}
		line += word
	}
	return a.printf("%s\n", line)
}

func (a *app) peerRefusalsCommand() *cobra.Command {
	var limit int
	c := a.command(&cobra.Command{
		Use:   "refusals PEER",
		Short: "Say what a peer was refused",
		Long: `Say what a peer was refused: totals by reason, the newest devices that are here,
and the newest that are not, with what each last request said and what to do. PEER is
a name or an id.

Devices are shown to the operator. The organisation that holds the peer sees totals,
for the reasons that the peer was told.`,
		Example: `  joinctl peer refusals "Example Networks"
  joinctl peer refusals "Example Networks" --json | jq -r '.unknown[].received.devEUI'`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		p, err := findPeer(ctx, api, args[0])
		if err != nil {
			return err
		}
		r, err := api.PeerRefusals(ctx, p.ID, limit)
		if err != nil {
			return err
		}
		return a.show(r, func() error { return a.explainPeer(p, r) })
	})
	c.Flags().IntVar(&limit, "limit", 0, "at most this many devices (0: the server's default)")
	return c
}

func (a *app) explainPeer(p client.Peer, r client.PeerRefusals) error {
	if len(r.Totals) == 0 {
		a.sayf("nothing was refused to %s\n", clean(p.Name))
		return a.notKept(r.NotKept)
	}
	if err := a.explainRefusals("Refused to "+clean(p.Name)+", by reason:", r.Totals); err != nil {
		return err
	}
	for _, list := range []struct {
		title string
		items []client.Refusal
	}{{"Devices that are here:", r.Devices}, {"Devices that are not here:", r.Unknown}} {
		if len(list.items) == 0 {
			continue
		}
		if err := a.printf("\n%s\n", list.title); err != nil {
			return err
		}
		if err := showList(a, list.items, refusalColumns); err != nil {
			return err
		}
	}
	return a.notKept(r.NotKept)
}

var refusalColumns = columns[client.Refusal]{
	names: []string{"last", "times", "reason", "JoinEUI", "DevEUI", "from"},
	cells: func(r client.Refusal) []any {
		return []any{when(r.Last, "?"), r.Count, r.Reason, r.Received.JoinEUI, r.Received.DevEUI, r.Received.SenderID}
	},
}
