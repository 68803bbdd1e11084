package store

import (
	"testing"

	"joinery"
)

// What the feed costs a join while it is answered: one entry in memory.
func BenchmarkTellFeed(b *testing.B) {
	s := sequence{on: true}
	batch, outcomes := make([]*joinCommit, 40), make([]error, 40)
	for i := range batch {
		batch[i] = &joinCommit{id: joinery.ActivationID(i + 1), owner: 1}
	}
	for b.Loop() {
		s.tell(batch, outcomes)
		s.joins = s.joins[:0]
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/join")
}

// What it costs behind: naming what a quarter of a second committed at 10,000
// joins a second.
func BenchmarkSequence(b *testing.B) {
	d := mustOpen(b, newOptions(b))
	if err := d.BeginFeed(b.Context()); err != nil {
		b.Fatal(err)
	}
	const joins = 2500
	for b.Loop() {
		for i := range joins {
			d.sequence.joins = append(d.sequence.joins, sequenced{joinery.ActivationID(i + 1), 1})
		}
		if _, err := d.Sequence(b.Context(), false); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*joins), "ns/join")
}
