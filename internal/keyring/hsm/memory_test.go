package hsm_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"joinery/internal/keyring/hsm"
	"joinery/test/leak"
)

// forgetful is the source of a PKCS #11 library that keeps nothing: what is left of
// a secret after a call is then the caller's.
const forgetful = `
#include <string.h>
typedef unsigned long ck;
typedef struct { ck type; void *value; ck len; } attribute;
typedef struct { unsigned char version[2]; void *functions[68]; } list;
static list l;
static ck ok(void) { return 0; }
static ck read_value(ck s, ck o, attribute *a, ck n) { memset(a->value, 'R', a->len); return 0; }
static ck encrypt(ck s, void *in, ck n, void *out, ck *len) { memset(out, 'E', *len); return 0; }
ck C_GetFunctionList(list **out) {
	for (int i = 0; i < 68; i++) l.functions[i] = (void *)ok;
	l.functions[24] = (void *)read_value;
	l.functions[30] = (void *)encrypt;
	l.version[0] = 2; l.version[1] = 40;
	*out = &l;
	return 0;
}
`

// memoryPlan is what the child process of the test is told; secrets are masked.
type memoryPlan struct {
	Module string
	PIN    []byte
	Value  []byte
	Client bool // by the client's own calls
}

const memoryPlanVar = "JOINERY_TEST_HSM_MEMORY"

// The calls that carry secrets leave none behind: not the PIN, not the value of a
// key that is made, read or encrypted. The client's own calls do, which shows that
// the search finds them.
func TestDirectCallsLeaveNothing(t *testing.T) {
	if plan := os.Getenv(memoryPlanVar); plan != "" {
		memoryChild(t, plan)
		return
	}
	if testing.Short() {
		t.Skip("the race detector's memory is a long search, and none of ours; it runs without, too")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may read the memory of others")
	}
	module := compile(t, forgetful)
	for _, byClient := range []bool{false, true} {
		hits := callsOf(t, module, byClient)
		switch {
		case !byClient && len(hits) > 0:
			t.Errorf("after direct calls: %v", hits)
		case byClient && len(hits) == 0:
			t.Error("the search does not even find what the client's calls leave")
		}
		t.Logf("by the client's own calls: %v; found: %v", byClient, hits)
	}
}

// compile makes a library of C.
func compile(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	c, library := filepath.Join(dir, "module.c"), filepath.Join(dir, "module.so")
	if err := os.WriteFile(c, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", library, c).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return library
}

// callsOf has a process make the calls, and searches its memory afterwards.
func callsOf(t *testing.T, module string, byClient bool) leak.Found {
	t.Helper()
	pin, value := make([]byte, 48), make([]byte, 64)
	rand.Read(pin)
	rand.Read(value)
	var secrets leak.Secrets
	secrets.Plant("PIN", pin)
	secrets.Plant("value", value)
	// C's heap writes over the beginning of what is given back to it.
	secrets.Plant("end of the PIN", pin[32:])
	secrets.Plant("end of the value", value[32:])
	secrets.Plant("value read", bytes.Repeat([]byte{'R'}, 61))
	secrets.Plant("value encrypted", bytes.Repeat([]byte{'E'}, 61))
	plan, err := json.Marshal(memoryPlan{Module: module, PIN: masked(pin), Value: masked(value), Client: byClient})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDirectCallsLeaveNothing$")
	cmd.Env = append(os.Environ(), memoryPlanVar+"="+string(plan))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 256)
	n, err := stdout.Read(said)
	if err != nil || !strings.HasPrefix(string(said[:n]), "done") {
		t.Fatalf("the process says %q, %v", said[:n], err)
	}
	c, err := secrets.InProcess(cmd.Process.Pid)
	if err := errors.Join(err, stdin.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	return c.In(leak.Dumped()...)
}

// masked keeps secrets out of what the child is told.
func masked(b []byte) []byte {
	b = bytes.Clone(b)
	for i := range b {
		b[i] ^= 0xA5
	}
	return b
}

// memoryChild makes the calls, says so, and waits.
func memoryChild(t *testing.T, text string) {
	var plan memoryPlan
	if err := json.Unmarshal([]byte(text), &plan); err != nil {
		t.Fatal(err)
	}
	pin, value := masked(plan.PIN), masked(plan.Value)
	calls := hsm.DirectCalls
	if plan.Client {
		calls = hsm.ClientCalls
	}
	if err := calls(plan.Module, pin, value); err != nil {
		t.Fatal(err)
	}
	clear(pin)
	clear(value)
	fmt.Println("done")
	_, _ = os.Stdin.Read(make([]byte, 1))
}
