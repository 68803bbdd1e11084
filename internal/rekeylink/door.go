package rekeylink

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"joinery"
	"joinery/internal/rekey"
	"joinery/internal/rekeyfile"
)

// Rules is what is done with what others send; see rekey.Service.
type Rules interface {
	// Known is the pinned Join Servers as they were a moment ago, without looking at the
	// database for each who asks; Servers as they are.
	Known(ctx context.Context) ([]joinery.JoinServer, error)
	Servers(ctx context.Context) ([]joinery.JoinServer, error)
	TakeOffer(ctx context.Context, from joinery.JoinServer, file []byte) (rekeyfile.Offered, error)
	Tell(ctx context.Context, from joinery.JoinServer, after joinery.ReceiptPlace) ([]byte, error)
}

// Rates bounds who asks too often; CodeRateLimited.
type Rates interface {
	SpendPeer(answer http.Header, peer joinery.PeerID, requests int) error
}

// Door answers other Join Servers, on the API's TLS listener.
type Door struct {
	rules Rules
	rates Rates
	log   *slog.Logger
	now   func() time.Time
	mux   *http.ServeMux
}

// NewDoor makes the door.
func NewDoor(rules Rules, rates Rates, log *slog.Logger, now func() time.Time) *Door {
	d := &Door{rules: rules, rates: rates, log: log, now: now, mux: http.NewServeMux()}
	d.mux.HandleFunc("POST "+pathOffers, d.as(d.offer))
	d.mux.HandleFunc("GET "+pathReceipts, d.as(d.receipts))
	d.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, problem{Status: http.StatusNotFound, Code: codeNoSuch, Detail: "this server speaks version 1 of the hand-over protocol: POST " + pathOffers + ", GET " + pathReceipts})
	})
	return d
}

// ServeHTTP implements http.Handler.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.mux.ServeHTTP(w, r) }

// as finds who asks, before anything else of the request is looked at, and on every
// request anew: who was unpinned is a stranger at once, and who was pinned by another
// server on the same database is none after two seconds.
func (d *Door) as(answer func(w http.ResponseWriter, r *http.Request, from joinery.JoinServer) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		from, err := d.caller(r)
		if err == nil {
			err = d.rates.SpendPeer(w.Header(), joinery.PeerID(from.ID), 1)
		}
		if err == nil {
			err = answer(w, r, from)
		}
		if err != nil {
			p := problemOf(err)
			if p.Status >= http.StatusInternalServerError && r.Context().Err() == nil {
				d.log.Warn("a call of another Join Server failed", "server", from.Name, "error", err)
			}
			refuse(w, p)
		}
	}
}

// caller finds who asks. A stranger is refused by what is in memory, so that he costs
// no look at the database; whoever is known is looked up anew.
func (d *Door) caller(r *http.Request) (from joinery.JoinServer, err error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return joinery.JoinServer{}, joinery.Errorf(joinery.CodeUnauthenticated, "this is for Join Servers: connect to the TLS listener with a client certificate")
	}
	for _, look := range []func(context.Context) ([]joinery.JoinServer, error){d.rules.Known, d.rules.Servers} {
		list, lookErr := look(r.Context())
		if lookErr != nil {
			return joinery.JoinServer{}, lookErr
		}
		if from, err = resolve(list, r.TLS.PeerCertificates, d.now()); err != nil {
			return joinery.JoinServer{}, err
		}
	}
	return from, nil
}

func (d *Door) offer(w http.ResponseWriter, r *http.Request, from joinery.JoinServer) error {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != typeFile {
		return joinery.Errorf(joinery.CodeInvalid, "Content-Type: want %s", typeFile)
	}
	file, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		if _, over := errors.AsType[*http.MaxBytesError](err); over {
			return joinery.Errorf(joinery.CodeTooLarge, "an offer has at most %d bytes", MaxBody)
		}
		return joinery.WrapError(joinery.CodeInvalid, err, "the offer ended before its end")
	}
	answer, err := d.rules.TakeOffer(r.Context(), from, file)
	if err != nil {
		return err
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	write(w, http.StatusOK, typeFile, text)
	return nil
}

func (d *Door) receipts(w http.ResponseWriter, r *http.Request, from joinery.JoinServer) error {
	var after joinery.ReceiptPlace
	var err error
	query := r.URL.Query()
	if after.N, err = strconv.ParseUint(query.Get("after"), 10, 62); err != nil {
		return joinery.Errorf(joinery.CodeInvalid, "after: want the number of the last entry that was read, 0 for none")
	}
	if text := query.Get("epoch"); text != "" {
		if after.Epoch, err = strconv.ParseUint(text, 10, 53); err != nil {
			return joinery.Errorf(joinery.CodeInvalid, "epoch: want that of the page that was read last, 0 or nothing for none")
		}
	}
	file, err := d.rules.Tell(r.Context(), from, after)
	if err != nil {
		return err
	}
	write(w, http.StatusOK, typeFile, file)
	return nil
}

// problemOf says an error in the words of the protocol.
func problemOf(err error) problem {
	p := problem{Status: http.StatusServiceUnavailable, Code: codeUnavailable, Detail: "it cannot be answered now; try again later"}
	if errors.Is(err, rekey.ErrAhead) {
		return problem{Status: http.StatusConflict, Code: codeAhead, Detail: joinery.MessageOf(err)}
	}
	switch joinery.CodeOf(err) {
	case joinery.CodeUnauthenticated, joinery.CodeForbidden:
		p.Status, p.Code = http.StatusForbidden, codeIdentity
	case joinery.CodeInvalid:
		p.Status, p.Code = http.StatusBadRequest, codeInvalid
	case joinery.CodeTooLarge:
		p.Status, p.Code = http.StatusRequestEntityTooLarge, codeTooLarge
	case joinery.CodeRateLimited:
		p.Status, p.Code = http.StatusTooManyRequests, codeRate
	default:
		return p
	}
	p.Detail = joinery.MessageOf(err)
	return p
}

func refuse(w http.ResponseWriter, p problem) {
	p.Type = "about:blank"
	if p.Code == codeRate || p.Code == codeUnavailable {
		w.Header().Set("Retry-After", "30")
	}
	text, err := json.Marshal(p)
	if err != nil { // strings and a number
		text = nil
	}
	write(w, p.Status, typeProblem, text)
}

func write(w http.ResponseWriter, status int, media string, text []byte) {
	w.Header().Set("Content-Type", media)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
