package events

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"joinery"
)

const page = "../../docs/events.md"

// Every type of event is explained to those who get it.
func TestTypesAreDocumented(t *testing.T) {
	text, err := os.ReadFile(page)
	ok(t, err)
	for _, e := range joinery.EventTypes {
		// webhook.added and .removed stand in one row.
		if _, verb, _ := strings.Cut(string(e), "."); !strings.Contains(string(text), "`"+string(e)+"`") && !strings.Contains(string(text), "`."+verb+"`") {
			t.Errorf("%s does not explain %s", page, e)
		}
	}
}

// The receiver of the page is a program that builds.
func TestReceiverOfThePageBuilds(t *testing.T) {
	text, err := os.ReadFile(page)
	ok(t, err)
	_, rest, found := strings.Cut(string(text), "```go\n")
	source, _, ends := strings.Cut(rest, "```")
	if !found || !ends {
		t.Fatal("there is no program on the page")
	}
	path := filepath.Join(t.TempDir(), "receiver.go")
	ok(t, os.WriteFile(path, []byte(source), 0o600))
	if out, err := exec.CommandContext(t.Context(), "go", "vet", path).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
