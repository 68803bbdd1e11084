package bus

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"joinery/internal/sim/chip"
)

// TransactionKind is what a host does on the bus.
type TransactionKind int

// The kinds. A Command is a write with a command; a Write is any other.
const (
	Wake TransactionKind = iota + 1
	Write
	Command
	Read
)

// Transaction is one transaction, before the chip heard of it.
type Transaction struct {
	Kind TransactionKind
	// Awake, of a Wake, is that the chip was awake, and has nothing to do or to say.
	Awake bool
	// Of a Command: which, and its packet, which is not to be kept.
	Op     chip.Opcode
	Packet []byte
}

// FaultKind is what goes wrong.
type FaultKind int

// The kinds. Slow is no kind of its own: any fault may have a Delay.
const (
	None         FaultKind = iota
	PowerLoss              // the chip loses its power for a moment, before the transaction
	NACK                   // the transaction is not acknowledged, and did not happen
	WakeFailure            // the chip does not wake
	CRCError               // the answer's CRC is wrong, the command was carried out; of a Read, the last byte that is read
	CommandError           // the command is answered with Status, and not carried out; or a wake is
)

// Fault is what goes wrong with one transaction. What fits tells which of them may.
type Fault struct {
	Kind   FaultKind
	Status chip.Status
	Delay  time.Duration
}

// fits tells whether a fault does something to transactions of a kind; 0: to each of them.
func (f Fault) fits(kind TransactionKind) bool {
	switch {
	case f.Delay > 0 || f.Kind == CommandError:
		return kind == Wake || kind == Command
	case f.Kind == CRCError:
		return kind == Wake || kind == Command || kind == Read
	case f.Kind == WakeFailure:
		return kind == Wake
	}
	return true
}

// does tells whether a fault does something to a transaction.
func (f Fault) does(t Transaction) bool {
	return f.fits(t.Kind) && (!t.Awake || f.Kind == PowerLoss || f.Kind == NACK)
}

// Faults says of each transaction what goes wrong. Next is called once for each, in
// their order, by one goroutine at a time for each bus.
type Faults interface {
	Next(Transaction) Fault
}

// Rule is one line of a script: on which transactions which fault happens.
type Rule struct {
	// Kind says which transactions are counted; 0: all.
	Kind TransactionKind
	// Op, of a Command, narrows that to one command; 0: all.
	Op chip.Opcode
	// From is the first that the fault happens to, counted from 1; Count how many, 0:
	// all that follow.
	From, Count int
	Fault       Fault
}

// Script is Faults by rules. The first that fits says what happens; all count.
type Script struct {
	mu    sync.Mutex
	rules []Rule
	seen  []int
	hits  int
}

// NewScript makes a script.
func NewScript(rules ...Rule) *Script { return &Script{rules: rules, seen: make([]int, len(rules))} }

// Next implements Faults.
func (s *Script) Next(t Transaction) (f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := false
	for i, r := range s.rules {
		if r.Kind != 0 && r.Kind != t.Kind || r.Op != 0 && r.Op != t.Op {
			continue
		}
		s.seen[i]++
		if n := s.seen[i]; n >= r.From && (r.Count == 0 || n < r.From+r.Count) && !found && r.Fault.does(t) {
			f, found = r.Fault, true
			s.hits++
		}
	}
	return f
}

// Hits gives how many faults happened.
func (s *Script) Hits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits
}

var kindNames = map[string]TransactionKind{"transaction": 0, "wake": Wake, "write": Write, "command": Command, "read": Read}

// ParseScript reads a script, a rule a line:
//
//	WHAT WHICH FAULT
//
// WHAT is transaction (all are counted), wake, read, write (of no command), command, or
// the name of one: AES, KDF. WHICH is every, or the number of one from 1, or with +N
// behind it N of them, +* all that follow. FAULT is power-loss, nack, no-wake, crc,
// error XX (a status in hexadecimal) or slow DURATION; the last four of those
// transactions only that have such a thing: crc of wakes, reads and commands, error and
// slow of wakes and commands, no-wake of wakes, and of those only where the chip was not awake. What follows a # is
// ignored.
func ParseScript(r io.Reader) (*Script, error) {
	var rules []Rule
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		rule, err := parseRule(fields)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		rules = append(rules, rule)
	}
	return NewScript(rules...), lines.Err()
}

func parseRule(fields []string) (r Rule, err error) {
	if len(fields) < 3 {
		return r, fmt.Errorf("want WHAT WHICH FAULT, such as: AES 2 error 0F")
	}
	kind, known := kindNames[fields[0]]
	if !known {
		if r.Op, known = chip.ParseOpcode(fields[0]); !known {
			return r, fmt.Errorf("%q is neither transaction, wake, read, write, command nor a command's name", fields[0])
		}
		kind = Command
	}
	r.Kind = kind
	if r.From, r.Count, err = parseWhich(fields[1]); err != nil {
		return r, err
	}
	if r.Fault, err = parseFault(fields[2:]); err == nil && !r.Fault.fits(kind) {
		err = fmt.Errorf("%s does nothing to %s: crc is for wake, read and commands, error and slow for wake and commands, no-wake for wake",
			fields[2], fields[0])
	}
	return r, err
}

func parseWhich(text string) (from, count int, err error) {
	if text == "every" {
		return 1, 0, nil
	}
	first, more, several := strings.Cut(text, "+")
	count = 1
	if from, err = strconv.Atoi(first); err == nil && several {
		if more == "*" {
			count = 0
		} else if count, err = strconv.Atoi(more); count < 1 {
			from = 0
		}
	}
	if err != nil || from < 1 {
		return 0, 0, fmt.Errorf("%q is neither every, nor a number from 1, nor one with +N", text)
	}
	return from, count, nil
}

func parseFault(fields []string) (f Fault, err error) {
	argument := ""
	if len(fields) > 1 {
		argument = fields[1]
	}
	wants := 1
	switch fields[0] {
	case "power-loss":
		f.Kind = PowerLoss
	case "nack":
		f.Kind = NACK
	case "no-wake":
		f.Kind = WakeFailure
	case "crc":
		f.Kind = CRCError
	case "error":
		wants = 2
		status, err := strconv.ParseUint(argument, 16, 8)
		if err != nil || status == 0 {
			return f, fmt.Errorf("error: want a status, two hexadecimal digits, such as 0F")
		}
		f.Kind, f.Status = CommandError, chip.Status(status)
	case "slow":
		wants = 2
		if f.Delay, err = time.ParseDuration(argument); err != nil || f.Delay <= 0 {
			return f, fmt.Errorf("slow: want how long, such as 300ms")
		}
	default:
		return f, fmt.Errorf("%q is no fault: want power-loss, nack, no-wake, crc, error or slow", fields[0])
	}
	if len(fields) != wants {
		return f, fmt.Errorf("%s: too many words", fields[0])
	}
	return f, nil
}

// NewRandom gives Faults that happen to one transaction in every so many, drawn from a
// seed: the same ones for the same transactions. Delays are of 50 ms.
func NewRandom(seed uint64, every int) Faults {
	return &random{r: rand.New(rand.NewPCG(seed, 0)), every: max(every, 1)}
}

type random struct {
	mu    sync.Mutex
	r     *rand.Rand
	every int
}

// Next implements Faults.
func (d *random) Next(t Transaction) Fault {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.r.IntN(d.every) != 0 {
		return Fault{}
	}
	some := slices.DeleteFunc(slices.Clone(drawn), func(f Fault) bool { return !f.does(t) })
	return some[d.r.IntN(len(some))]
}

// drawn is what a seed draws from.
var drawn = []Fault{
	{Kind: PowerLoss}, {Kind: NACK}, {Delay: 50 * time.Millisecond}, {Kind: WakeFailure}, {Kind: CRCError},
	{Kind: CommandError, Status: chip.Refused}, {Kind: CommandError, Status: chip.ECCFault},
}
