package custodylog

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"joinery"
	"joinery/auditlog"

	"golang.org/x/mod/sumdb/note"
)

const (
	witnessTimeout = 10 * time.Second
	witnessAnswer  = 16 << 10
)

// witness is one that is asked to sign.
type witness struct {
	url      string
	verifier note.Verifier
}

// cosign asks each witness for a signature and adds those that came. A checkpoint
// is published without those that did not: a witness that is away must not hold
// the log up, and whoever wants its signature sees that it is missing.
func (s *Service) cosign(ctx context.Context, state joinery.LogState, c auditlog.Checkpoint, signed []byte) []byte {
	for _, w := range s.witnesses {
		line, err := s.ask(ctx, w, state, signed)
		if err != nil {
			s.stats.missed(w.verifier.Name())
			s.opt.Log.Warn("a witness has not signed the custody log", slog.String("witness", w.verifier.Name()), slog.Any("error", err))
			continue
		}
		if err := checkCosignature(c, line, w); err != nil {
			s.stats.missed(w.verifier.Name())
			s.opt.Log.Warn("what a witness sent is no signature of the custody log", slog.String("witness", w.verifier.Name()), slog.Any("error", err))
			continue
		}
		signed = append(signed, line...)
		if err := s.store.SaveWitnessSize(ctx, w.verifier.Name(), state.Line, state.Size); err != nil {
			s.opt.Log.Debug("how far a witness followed is not noted", slog.Any("error", err))
		}
	}
	return signed
}

// checkCosignature checks the lines that a witness sent.
func checkCosignature(c auditlog.Checkpoint, lines []byte, w witness) error {
	msg := append(append(c.Text(), '\n'), lines...)
	_, err := note.Open(msg, note.VerifierList(w.verifier))
	return err
}

// ask sends a checkpoint to a witness with the proof that it continues what the
// witness has seen, which it may have to tell first.
func (s *Service) ask(ctx context.Context, w witness, state joinery.LogState, signed []byte) ([]byte, error) {
	seen, err := s.store.WitnessSize(ctx, w.verifier.Name(), state.Line)
	if err != nil {
		return nil, err
	}
	for range 2 {
		body, err := s.addCheckpoint(ctx, state.Size, seen, signed)
		if err != nil {
			return nil, err
		}
		status, answer, err := s.post(ctx, w, body)
		switch {
		case err != nil:
			return nil, err
		case status == http.StatusOK:
			return answer, nil
		case status != http.StatusConflict:
			return nil, fmt.Errorf("it answered %d", status)
		}
		if seen, err = strconv.ParseInt(strings.TrimSpace(string(answer)), 10, 64); err != nil || seen < 0 || seen > state.Size {
			return nil, fmt.Errorf("it has seen another state of this log than there is: %.40q; somebody else spoke for this log, or it was restored", answer)
		}
	}
	return nil, fmt.Errorf("it does not agree on what it has seen")
}

// addCheckpoint is the body of such a request: the size that the witness has seen,
// a consistency proof from there, an empty line and the checkpoint.
func (s *Service) addCheckpoint(ctx context.Context, size, seen int64, signed []byte) ([]byte, error) {
	b := fmt.Appendf(nil, "old %d\n", seen)
	if seen > 0 && seen < size {
		proof, err := s.tree(ctx, size).Consistency(seen)
		if err != nil {
			return nil, err
		}
		for _, h := range proof {
			b = append(base64.StdEncoding.AppendEncode(b, h[:]), '\n')
		}
	}
	return append(append(b, '\n'), signed...), nil
}

func (s *Service) post(ctx context.Context, w witness, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(w.url, "/")+"/add-checkpoint", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	resp, err := s.opt.HTTP.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	answer, err = io.ReadAll(io.LimitReader(resp.Body, witnessAnswer))
	return resp.StatusCode, answer, err
}
