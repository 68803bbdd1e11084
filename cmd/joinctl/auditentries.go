package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"joinery/auditlog"
)

// shownReport is what was found of a bundle, and what it tells where that was asked
// for, for programs.
type shownReport struct {
	auditlog.Report
	List []shownEntry `json:"list,omitempty"`
}

// shownEntry is what one entry of a bundle tells.
type shownEntry struct {
	ID     string            `json:"id"`
	Leaf   int64             `json:"leaf"` // -1: not in the log yet
	At     time.Time         `json:"at,omitzero"`
	Event  string            `json:"event"`
	Actor  string            `json:"actor,omitzero"`
	Detail map[string]string `json:"detail,omitempty"`
}

// shownEntries reads what the entries tell, oldest first. Of one that was withheld or
// erased nothing is known, not even when it was.
func shownEntries(b auditlog.Bundle) (list []shownEntry) {
	for _, e := range b.Entries {
		s := shownEntry{ID: e.ID, Leaf: e.Leaf, Event: "(of another owner)"}
		switch {
		case e.ErasedBy != "":
			s.Event = "(erased)"
		case e.Payload == nil:
		case e.Kind == auditlog.KindJoin:
			j, err := auditlog.ParseJoin(e.Payload)
			if err != nil {
				s.Event = "(unreadable)"
				break
			}
			s.At, s.Event, s.Detail = j.At, "device.joined", map[string]string{
				"joinEUI": j.JoinEUI, "netID": j.NetID, "joinNonce": fmt.Sprint(j.JoinNonce), "count": fmt.Sprint(j.Count)}
			if j.Type != joinNotRejoin {
				s.Detail["rejoin"] = fmt.Sprint(j.Type)
			}
		default:
			p, err := auditlog.ParseEvent(e.Payload)
			if err != nil {
				s.Event = "(unreadable)"
				break
			}
			s.At, s.Event, s.Actor, s.Detail = p.Time(), p.Event, p.Actor, p.Detail
		}
		list = append(list, s)
	}
	// Those in the log in its order, then those that are not in it yet.
	slices.SortStableFunc(list, func(a, b shownEntry) int {
		return cmp.Or(cmp.Compare(uint64(a.Leaf), uint64(b.Leaf)), a.At.Compare(b.At))
	})
	return list
}

// joinNotRejoin stands in the payload of a join where a rejoin has its type.
const joinNotRejoin = 0xFF

// showEntries lists entries for people.
func (a *app) showEntries(list []shownEntry) error {
	for _, e := range list {
		var detail []string
		for _, name := range slices.Sorted(maps.Keys(e.Detail)) {
			detail = append(detail, name+"="+e.Detail[name])
		}
		by := ""
		if e.Actor != "" {
			by = " by " + e.Actor
		}
		text := strings.TrimSpace(fmt.Sprintf("%s  %s%s  %s", when(e.At, strings.Repeat(" ", len("2006-01-02 15:04:05 UTC"))), e.Event, by, strings.Join(detail, " ")))
		if err := a.printf("%s\n", clean(text)); err != nil {
			return err
		}
	}
	return nil
}
