package main

import (
	"strconv"
	"strings"

	"joinery/internal/label"

	"github.com/spf13/cobra"
)

// sheetFlags are the flags that lay labels out on pages.
type sheetFlags struct {
	page, label, gap, margins, words, title string
	columns, rows, skip                     int
	outline                                 bool
}

func (s *sheetFlags) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.page, "page", "A4", "size of a page: A4, letter, or WIDTHxHEIGHT in mm; for a roll the size of a label")
	f.StringVar(&s.label, "label", "63.5x38.1", "size of a label, WIDTHxHEIGHT in mm")
	f.IntVar(&s.columns, "columns", 0, "labels side by side (0: as many as there is room for)")
	f.IntVar(&s.rows, "rows", 0, "labels one below the other (0: as many as there is room for)")
	f.StringVar(&s.margins, "margins", "", "margins before the first label, LEFTxTOP in mm (default: the labels are in the middle)")
	f.StringVar(&s.gap, "gap", "0x0", "gap between labels, ACROSSxDOWN in mm")
	f.IntVar(&s.skip, "skip", 0, "places of the first page to leave out, for sheets that were begun")
	f.StringVar(&s.title, "title", "", "text above everything else on each label")
	f.StringVar(&s.words, "text", "all", "text for people: all, ids (without the owner token), none")
	f.BoolVar(&s.outline, "outline", false, "draw the edge of each label")
}

func (s *sheetFlags) layout() (l label.Layout, err error) {
	l = label.Layout{Columns: s.columns, Rows: s.rows, Left: -1, Top: -1, Skip: s.skip, Title: s.title, Outline: s.outline}
	switch strings.ToLower(s.page) {
	case "a4":
		l.Page = label.A4
	case "letter":
		l.Page = label.Letter
	default:
		if l.Page, err = parseSize(s.page); err != nil {
			return l, usagef("--page: %w", err)
		}
	}
	if l.Label, err = parseSize(s.label); err != nil {
		return l, usagef("--label: %w", err)
	}
	if l.Gap, err = parseSize(s.gap); err != nil {
		return l, usagef("--gap: %w", err)
	}
	if s.margins != "" {
		margins, err := parseSize(s.margins)
		if err != nil {
			return l, usagef("--margins: %w", err)
		}
		l.Left, l.Top = margins.W, margins.H
	}
	words, known := map[string]label.Wording{"all": label.WordsAll, "ids": label.WordsIDs, "none": label.WordsNone}[s.words]
	if !known {
		return l, usagef("--text: want all, ids or none")
	}
	l.Words = words
	return l, nil
}

// parseSize reads two lengths in millimetres, as in 63.5x38.1.
func parseSize(s string) (size label.Size, err error) {
	w, h, both := strings.Cut(strings.ToLower(s), "x")
	var errW, errH error
	size.W, errW = strconv.ParseFloat(w, 64)
	size.H, errH = strconv.ParseFloat(h, 64)
	if !both || errW != nil || errH != nil || !(size.W >= 0 && size.H >= 0) {
		return label.Size{}, usagef("want two lengths in mm, as in 63.5x38.1")
	}
	return size, nil
}
