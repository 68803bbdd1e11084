// The bench measures what a join costs: a quickstart server with 10,000 devices
// of derived keys on one processor, joinsim load on another, and between its
// measurements a bare net/http echo over mutual TLS, on the same processors and
// with bodies of the same size. The machine's moods cancel out in the ratio of
// the two.
//
// With -element it measures emulated secure elements behind sockets, and a bare echo of
// their frames. With -hsm it measures a server whose keys are in a token, of SoftHSM, made by a
// ceremony as operators do. With -growth it measures instead whether a join costs the same with a hundred
// times as many devices.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// childEnv says that this program was run by itself, and as what.
const childEnv = "JOINERY_BENCH_CHILD"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if what := os.Getenv(childEnv); what != "" {
		err = child(ctx, what, os.Stdin, os.Stdout)
	} else {
		err = run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // stop has nothing to undo that exit does not
	}
}

// options are the flags.
type options struct {
	timing
	growth, hsm, element, short, json bool
	repeats, devices                  int
	dir, keep, database               string
	// joinsim are programs to be compared, with -element.
	joinsim []string
	// also are processes that count as the server's.
	also []int
}

// run reads the flags and measures.
func run(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	o := options{timing: timing{time.Second, 5 * time.Second}}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.BoolVar(&o.growth, "growth", false, "measure a large fleet against a small one")
	flags.BoolVar(&o.hsm, "hsm", false, "measure a server whose keys are in a SoftHSM token")
	flags.BoolVar(&o.element, "element", false, "measure emulated elements behind sockets")
	flags.Func("joinsim", "a joinsim to be measured with -element, in turn with others (repeatable; default: the one of this tree)", func(path string) error {
		o.joinsim = append(o.joinsim, path)
		return nil
	})
	flags.BoolVar(&o.short, "short", false, "a quick look: less time, fewer repetitions")
	flags.BoolVar(&o.json, "json", false, "print one JSON object instead of a table")
	flags.IntVar(&o.repeats, "repeats", 5, "repetitions, of which the medians count (-short: 2)")
	flags.IntVar(&o.devices, "devices", 0, "devices (default 10,000; with -growth 1,000,000, or 10,000,000 where JOINERY_LONG is set; with -hsm 2,000)")
	flags.DurationVar(&o.duration, "duration", o.duration, "how long each measurement takes")
	flags.DurationVar(&o.warmup, "warmup", o.warmup, "how long each runs before")
	flags.StringVar(&o.dir, "dir", "", "where the server's directory is made, on a disk (default: the directory for temporary files, or bin/ where that is in memory)")
	flags.StringVar(&o.database, "database", "", "URL of an empty PostgreSQL database, for the bench without -growth (default: SQLite)")
	flags.Func("pid", "process that counts as the server's, such as the database's first one (repeatable)", func(text string) error {
		pid, err := strconv.Atoi(text)
		o.also = append(o.also, pid)
		return err
	})
	flags.StringVar(&o.keep, "keep", "", "make the fleets in this directory and leave them there, for the next run with it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.hsm {
		o.lengthen(flags)
	}
	if o.element {
		o.duration = min(o.duration, 2*time.Second)
	}
	if o.short {
		o.shorten(flags)
	}
	if err := o.check(); err != nil {
		return err
	}
	if o.dir, err = directory(o.dir); err != nil {
		return err
	}
	tell := newTell(progress)
	if o.element {
		return runElements(ctx, o, out, tell)
	}
	if o.keep == "" {
		tell("directory: a new one in %s", o.dir)
	} else if o.keep, err = filepath.Abs(o.keep); err != nil {
		return err
	}
	p, err := build(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.remove()) }()
	if o.hsm {
		return runInToken(ctx, o, p, out, tell)
	}
	if o.growth {
		return runGrowth(ctx, o, p, out, tell)
	}
	return runBench(ctx, o, p, out, tell)
}

// check refuses what does not go together.
func (o *options) check() error {
	switch {
	case o.element && (o.hsm || o.growth || o.database != ""):
		return errors.New("-element measures elements only")
	case o.hsm && (o.growth || o.database != ""):
		return errors.New("-hsm measures one server with SQLite only")
	case o.database != "" && o.growth:
		return errors.New("-growth needs two databases: it measures SQLite only")
	}
	return nil
}

// directory chooses where the server lies.
func directory(wanted string) (string, error) {
	switch {
	case wanted != "":
		return filepath.Abs(wanted)
	case onDisk(os.TempDir()):
		return os.TempDir(), nil
	}
	return filepath.Abs("bin")
}

// lengthen is what -hsm takes where no flag asks: 20 seconds of either load, once.
func (o *options) lengthen(flags *flag.FlagSet) {
	asked := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { asked[f.Name] = true })
	if !asked["repeats"] {
		o.repeats = 1
	}
	if !asked["duration"] {
		o.duration = 20 * time.Second
	}
}

// shorten takes less of what no flag asks for.
func (o *options) shorten(flags *flag.FlagSet) {
	asked := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { asked[f.Name] = true })
	if !asked["repeats"] {
		o.repeats = 2
	}
	if !asked["duration"] {
		o.duration = time.Second
	}
	if !asked["warmup"] {
		o.warmup = 200 * time.Millisecond
	}
}
