package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"joinery/test/rig"
)

// echoProgram names the bare echo among the programs.
const echoProgram = "echo"

// wireElements is how many elements there are, and hosts at most.
const wireElements = 64

// elements is what was found of `joinsim element serve`, by network and number of
// hosts.
type elements struct {
	Pinned bool      `json:"pinned"`
	Wires  []oneWire `json:"wires"`
}

// oneWire is one of each measurement a repetition, for one program or the bare echo.
type oneWire struct {
	Network string `json:"network"`
	Hosts   int    `json:"hosts"`
	Program string `json:"program"`
	// Commands are six exchanges each.
	ASec   []float64 `json:"commandsPerSecond"`
	PerCPU []float64 `json:"commandsPerCPUSecond"`
	Busy   []float64 `json:"hostsBusy"` // of their processor, 0 to 1
}

// wireServer is a server that runs, on its processor.
type wireServer struct {
	network, address, name string
	cmd                    *exec.Cmd
}

// runElements measures emulated elements behind sockets: programs in turn, and a bare
// echo of the same frames.
func runElements(ctx context.Context, o options, out io.Writer, tell func(string, ...any)) (err error) {
	dir, err := os.MkdirTemp(o.dir, "joinery-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if len(o.joinsim) == 0 {
		p, err := rig.Build(ctx, dir)
		if err != nil {
			return err
		}
		o.joinsim = []string{p.Binary("joinsim")}
	}
	keys := filepath.Join(dir, "keys.csv")
	if err := os.WriteFile(keys, keyList(), 0o600); err != nil {
		return err
	}
	m := newMachine()
	var servers []*wireServer
	defer func() {
		for _, s := range servers {
			_ = s.cmd.Process.Signal(os.Interrupt)
			_ = s.cmd.Wait()
		}
	}()
	for i, network := range []string{"tcp", "unix"} {
		for j, program := range append([]string{""}, o.joinsim...) {
			address := "127.0.0.1:0"
			if network == "unix" {
				address = filepath.Join(dir, fmt.Sprintf("socket-%d-%d", i, j))
			}
			s, err := startWire(ctx, m, program, network, address, keys)
			if err != nil {
				return err
			}
			servers = append(servers, s)
		}
	}
	f := &elements{Pinned: m.pinned()}
	for i := range o.repeats {
		tell("repetition %d of %d", i+1, o.repeats)
		at := 0
		for _, hosts := range []int{16, wireElements} {
			for _, s := range servers {
				if i == 0 {
					f.Wires = append(f.Wires, oneWire{Network: s.network, Hosts: hosts, Program: s.name})
				}
				r, err := s.measure(ctx, m, hosts, o.timing)
				if err != nil {
					return fmt.Errorf("%s over %s: %w", s.name, s.network, err)
				}
				one := &f.Wires[at]
				one.ASec, one.PerCPU, one.Busy = append(one.ASec, r.perSecond()), append(one.PerCPU, r.perCPUSecond()), append(one.Busy, r.Busy)
				at++
			}
		}
	}
	if o.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(f)
	}
	return f.print(out)
}

// keyList is elements with the same keys: what they answer is alike.
func keyList() []byte {
	var b bytes.Buffer
	b.WriteString("JoinEUI,DevEUI,NwkKey,AppKey\n")
	for i := range wireElements {
		fmt.Fprintf(&b, "%s,%016X,%032X,%032X\n", joinEUI, firstDevEUI+i, 1, 2)
	}
	return b.Bytes()
}

// startWire starts a program, or the bare echo where there is none.
func startWire(ctx context.Context, m machine, program, network, address, keys string) (*wireServer, error) {
	s := &wireServer{network: network, address: address, name: program}
	if program != "" {
		door := address
		if network == "unix" {
			door = "unix:" + address
		}
		s.cmd = exec.CommandContext(ctx, program, "element", "serve", "--keys", keys, "--i2c", door, "--json")
	} else {
		order, err := json.Marshal(wireOrder{Network: network, Address: address})
		if err != nil {
			return nil, err
		}
		if s.cmd, err = again(ctx, "wire-echo", order); err != nil {
			return nil, err
		}
		s.name = echoProgram
	}
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := m.onServer(s.cmd); err != nil {
		return nil, err
	}
	said := make([]byte, 512)
	n, err := out.Read(said)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", s.name, err), s.cmd.Process.Kill(), s.cmd.Wait())
	}
	if network == "tcp" {
		s.address = strings.TrimSpace(string(said[:n]))
		if program != "" {
			var door struct{ Address string }
			err = json.Unmarshal(said[:n], &door)
			s.address = door.Address
		}
	}
	return s, err
}

// again is this program, run again as something else.
func again(ctx context.Context, what string, order []byte) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env, cmd.Stdin = append(os.Environ(), childEnv+"="+what), bytes.NewReader(order)
	return cmd, nil
}

// measure has hosts talk to a server from the other processor.
func (s *wireServer) measure(ctx context.Context, m machine, hosts int, t timing) (r wireResult, err error) {
	order, err := json.Marshal(wireOrder{
		Network: s.network, Address: s.address, Hosts: hosts, Echo: s.name == echoProgram,
		Warmup: max(t.warmup, 50*time.Millisecond), Duration: t.duration, PID: s.cmd.Process.Pid,
	})
	if err != nil {
		return r, err
	}
	cmd, err := again(ctx, "wire-hosts", order)
	if err != nil {
		return r, err
	}
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := m.onClient(cmd); err != nil {
		return r, err
	}
	if err := cmd.Wait(); err != nil {
		return r, fmt.Errorf("hosts: %w\n%s", err, problem.String())
	}
	return r, json.Unmarshal(out.Bytes(), &r)
}

// print prints the medians.
func (f *elements) print(out io.Writer) error {
	if f.Pinned {
		fmt.Fprintln(out, "\nserver and hosts on a processor each")
	}
	fmt.Fprintf(out, "a command is six exchanges; medians of %d, and the lowest and highest\n\n", len(f.Wires[0].ASec))
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "network\thosts\tprogram\tcommands/s\tfrom\tto\tper CPU-s\tfrom\tto\tof the echo\thosts busy\t")
	var echo float64
	for _, o := range f.Wires {
		if o.Program == echoProgram {
			echo = median(o.ASec)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t", o.Network, o.Hosts, o.Program)
		for _, of := range [][]float64{o.ASec, o.PerCPU} {
			fmt.Fprintf(w, "%.0f\t%.0f\t%.0f\t", median(of), slices.Min(of), slices.Max(of))
		}
		fmt.Fprintf(w, "%.2f\t%.0f %%\t\n", median(o.ASec)/echo, 100*median(o.Busy))
	}
	return w.Flush()
}
