package custody

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"joinery"
	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/seal"
)

// Argument makes joinery-hsm a custodian; AnswerFD is where it answers.
const (
	Argument = "custody"
	AnswerFD = 3
)

// endTimeout is how long a process has to log out before it is killed.
const endTimeout = 5 * time.Second

// Start starts joinery-hsm as a custodian and waits until it has opened its tokens.
// The error is its own where it could not. Closing ends the process.
func Start(ctx context.Context, program string, config Config) (keyring.Custodian, error) {
	answers, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, Argument)
	cmd.Dir = string(filepath.Separator)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr // libraries print where they like
	cmd.ExtraFiles = []*os.File{theirs}
	requests, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	_ = theirs.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the program that opens hardware tokens: %w", err), answers.Close())
	}
	p := &process{
		cmd: cmd, stdin: requests, pipe: answers, done: make(chan struct{}),
		requests: json.NewEncoder(requests), answers: json.NewDecoder(answers),
	}
	go func() {
		_ = cmd.Wait() // how it ended the state tells
		close(p.done)
	}()
	first, err := p.ask(ctx, config)
	if err == nil && (first.Hello == nil || first.Hello.Version != version) {
		err = errVersion
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.hello = *first.Hello
	return p, nil
}

// process is a keyring.Custodian in another process. It is safe for concurrent use:
// one request is under way at a time.
type process struct {
	cmd      *exec.Cmd
	stdin    io.Closer
	pipe     *os.File
	done     chan struct{} // closed when it has ended
	requests *json.Encoder
	answers  *json.Decoder
	hello    hello
	mu       sync.Mutex
	broken   error // a request was cut off: nothing more is asked
}

// ask sends a line and reads its answer. When ctx ends first, so does the process.
func (p *process) ask(ctx context.Context, line any) (a answer, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return a, p.broken
	}
	stop := context.AfterFunc(ctx, func() { _ = p.cmd.Process.Kill() })
	defer stop()
	err = p.requests.Encode(line)
	if err == nil {
		err = p.answers.Decode(&a)
	}
	switch {
	case ctx.Err() != nil:
		p.broken = fmt.Errorf("%w: it was told to stop: %w", keyring.ErrToken, ctx.Err())
	case err != nil:
		p.broken = fmt.Errorf("%w: joinery-hsm ended, its output says why (%w)", keyring.ErrToken, err)
	default:
		return a, a.Error.err()
	}
	return a, p.broken
}

// Generation implements keyring.Custodian.
func (p *process) Generation() uint32 { return p.hello.Generation }

// Signer implements keyring.Custodian.
func (p *process) Signer() exportfile.Signer { return p.hello.Signer }

// Wrappings implements keyring.Custodian.
func (p *process) Wrappings() []exportfile.Wrapping { return p.hello.Wrappings }

// Reseal implements keyring.Custodian.
func (p *process) Reseal(ctx context.Context, to seal.PublicKey, roots []joinery.StoredRoots) (seal.Header, []keyring.Resealed, error) {
	r := resealRequest{To: to.MarshalDER(), Roots: make([]storedRoots, len(roots))}
	for i, one := range roots {
		r.Roots[i] = storedRoots{one.KeySet, one.JoinEUI, one.DevEUI, one.MACVersion, one.Root10, one.Nwk.Custody, one.App.Custody}
	}
	a, err := p.ask(ctx, request{Reseal: &r})
	if err == nil && (a.Header == nil || len(a.Rows) != len(roots)) {
		err = errVersion
	}
	if err != nil {
		return seal.Header{}, nil, err
	}
	out := make([]keyring.Resealed, len(roots))
	for i, one := range a.Rows {
		switch {
		case one.Error != nil:
			out[i].Err = one.Error.err()
		case one.Row == nil:
			return seal.Header{}, nil, errVersion
		default:
			out[i].Row = *one.Row
		}
	}
	return *a.Header, out, nil
}

// Export implements keyring.Custodian.
func (p *process) Export(ctx context.Context, h exportfile.Header, to exportfile.Recipient, in []keyring.ExportIn) ([]keyring.ExportOut, error) {
	r := exportRequest{Header: h, To: to.MarshalDER(), In: make([]exportIn, len(in))}
	for i, one := range in {
		ks := one.KeySet
		about, err := json.Marshal(one.About)
		if err != nil {
			return nil, err
		}
		r.In[i] = exportIn{
			KeySet: ks.ID, DevEUI: ks.DevEUI, Origin: uint8(ks.Origin), Master: ks.Master, Generation: ks.Generation, Root10: ks.Root10,
			Nwk: ks.Nwk.Custody, App: ks.App.Custody, Rekey: uint8(ks.Rekey), Serial: ks.Serial[:], Steps: ks.Steps, About: about,
		}
	}
	a, err := p.ask(ctx, request{Export: &r})
	if err == nil && len(a.Out) != len(in) {
		err = errVersion
	}
	if err != nil {
		return nil, err
	}
	out := make([]keyring.ExportOut, len(in))
	for i, one := range a.Out {
		switch {
		case one.Error != nil:
			out[i].Err = one.Error.err()
		case one.Device == nil:
			return nil, errVersion
		default:
			out[i].Device = *one.Device
		}
	}
	return out, nil
}

// Close implements keyring.Custodian: the process logs out and ends.
func (p *process) Close() error {
	_ = p.stdin.Close() // its sign to end
	select {
	case <-p.done:
	case <-time.After(endTimeout):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	return p.pipe.Close()
}
