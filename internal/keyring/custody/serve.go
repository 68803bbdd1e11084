package custody

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"joinery"
	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/seal"
)

// Serve is the process: it reads which tokens to open, opens them, and answers
// requests until its input ends. What open fails with is told, and nothing is tried
// again.
func Serve(ctx context.Context, in io.Reader, out io.Writer, open func(context.Context, Config) (keyring.Custodian, error)) (err error) {
	requests, answers := json.NewDecoder(in), json.NewEncoder(out)
	var config Config
	if err := requests.Decode(&config); err != nil {
		return fmt.Errorf("what joinery says cannot be read: %w", err)
	}
	c, err := open(ctx, config)
	if err != nil {
		return errors.Join(err, answers.Encode(answer{Error: failureOf(err)}))
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	greeting := hello{Version: version, Generation: c.Generation(), Signer: c.Signer(), Wrappings: c.Wrappings()}
	if err := answers.Encode(answer{Hello: &greeting}); err != nil {
		return err
	}
	for {
		var text json.RawMessage
		switch err := requests.Decode(&text); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("a request cannot be read: %w", err)
		}
		var r request
		a := answer{Error: failureOf(keyring.ErrRequest)}
		if json.Unmarshal(text, &r) == nil {
			a = r.do(ctx, c)
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}

func (r request) do(ctx context.Context, c keyring.Custodian) answer {
	switch {
	case r.Reseal != nil:
		return r.Reseal.do(ctx, c)
	case r.Export != nil:
		return r.Export.do(ctx, c)
	}
	return answer{Error: failureOf(keyring.ErrRequest)}
}

func (r resealRequest) do(ctx context.Context, c keyring.Custodian) answer {
	to, err := seal.ParsePublicKeyDER(r.To)
	if err != nil {
		return answer{Error: failureOf(err)}
	}
	roots := make([]joinery.StoredRoots, len(r.Roots))
	for i, one := range r.Roots {
		roots[i] = one.domain()
	}
	h, made, err := c.Reseal(ctx, to, roots)
	if err != nil {
		return answer{Error: failureOf(err)}
	}
	rows := make([]resealedRow, len(made))
	for i, m := range made {
		if m.Err != nil {
			rows[i].Error = failureOf(m.Err)
		} else {
			rows[i].Row = &made[i].Row
		}
	}
	return answer{Header: &h, Rows: rows}
}

func (r exportRequest) do(ctx context.Context, c keyring.Custodian) answer {
	to, err := exportfile.ParseRecipientDER(r.To)
	if err != nil {
		return answer{Error: failureOf(err)}
	}
	in := make([]keyring.ExportIn, len(r.In))
	for i, one := range r.In {
		in[i] = one.domain()
	}
	made, err := c.Export(ctx, r.Header, to, in)
	if err != nil {
		return answer{Error: failureOf(err)}
	}
	out := make([]exportOut, len(made))
	for i, m := range made {
		if m.Err != nil {
			out[i].Error = failureOf(m.Err)
		} else {
			out[i].Device = &made[i].Device
		}
	}
	return answer{Out: out}
}
