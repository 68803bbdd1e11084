package refusal

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"joinery"
)

var update = flag.Bool("update", false, "write the table of docs/explain.md and testdata/explanations.txt anew")

// Every reason has its words, in the order in which reasons are looked for.
func TestEveryReasonHasWords(t *testing.T) {
	var have []joinery.RefusalReason
	for _, w := range wordings {
		have = append(have, w.reason)
		if w.what == nil || !strings.HasSuffix(w.means, ".") || !strings.HasSuffix(w.remedy, ".") {
			t.Errorf("%s: say what it means and what to do, in sentences", w.reason)
		}
		if len(w.reason) > 32 || strings.Trim(string(w.reason), "abcdefghijklmnopqrstuvwxyz-") != "" {
			t.Errorf("%q is no short word", w.reason)
		}
	}
	if !slices.Equal(have, joinery.RefusalReasons) {
		t.Errorf("words for %v\nreasons are %v", have, joinery.RefusalReasons)
	}
}

const (
	explainPage = "../../docs/explain.md"
	tableBegins = "<!-- reasons: go test ./internal/refusal -update -->\n"
	tableEnds   = "<!-- end of reasons -->"
)

// The page for people has the same words.
func TestReasonsAreDocumented(t *testing.T) {
	page, err := os.ReadFile(explainPage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(page), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !found || !ends {
		t.Fatalf("%s has no place for the table", explainPage)
	}
	var table strings.Builder
	table.WriteString("| reason | what it means | what to do |\n|---|---|---|\n")
	for _, w := range wordings {
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", w.reason, w.means, w.remedy)
	}
	want := before + tableBegins + table.String() + tableEnds + after
	if *update {
		if err := os.WriteFile(explainPage, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	} else if string(page) != want {
		t.Errorf("%s differs from the program's words; go test ./internal/refusal -update writes it anew", explainPage)
	}
}
