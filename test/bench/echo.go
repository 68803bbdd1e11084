package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"joinery/internal/sim/load"
)

// The bare echo: net/http over mutual TLS with the certificates of the quickstart
// server, which reads a request of the size of a JoinReq and answers with as
// many bytes as a JoinAns has. What a join costs more than that is the Join
// Server's own. Server and client are this program, run again.

// echoOrder is what both need to know.
type echoOrder struct {
	Certificate, Key string // of the server, or of the client
	CA               string // of whoever is on the other side
	// Address is where the client finds the server.
	Address string
	// Sizes are those that the server answers, by the order of the fleets; the
	// client asks for the one of Fleet.
	Sizes            []exchange
	Fleet            int
	Connections      int
	Warmup, Duration time.Duration
	// PID is the server's.
	PID int
}

// exchange is the sizes of two bodies, in bytes.
type exchange struct{ Request, Answer int }

// echoResult is what the client found out.
type echoResult struct {
	Requests uint64
	CPU      float64 // of the server, in seconds
	P99      float64 // in milliseconds
	Seconds  float64
}

func (r echoResult) perCPUSecond() float64 { return float64(r.Requests) / r.CPU }

// pool reads the authorities of a PEM file.
func pool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate", path)
	}
	return p, nil
}

// serveEcho serves until it is told to end. Its address is the first line that
// it prints.
func serveEcho(ctx context.Context, o echoOrder, out io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	certificate, err := tls.LoadX509KeyPair(o.Certificate, o.Key)
	if err != nil {
		return err
	}
	clients, err := pool(o.CA)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	handler := http.NewServeMux()
	for i, size := range o.Sizes {
		answer := bytes.Repeat([]byte{'x'}, size.Answer)
		handler.HandleFunc(echoPath(i), func(w http.ResponseWriter, r *http.Request) {
			body := make([]byte, size.Request)
			if _, err := io.ReadFull(r.Body, body); err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(answer)
		})
	}
	server := &http.Server{
		ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
			Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
		},
		Handler: handler,
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	fmt.Fprintln(out, l.Addr())
	if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// echoPath is where the echo of a fleet's sizes is.
func echoPath(fleet int) string { return fmt.Sprintf("/%d", fleet) }

// loadEcho sends requests over kept-alive connections, and measures the server.
func loadEcho(ctx context.Context, o echoOrder) (r echoResult, err error) {
	certificate, err := tls.LoadX509KeyPair(o.Certificate, o.Key)
	if err != nil {
		return r, err
	}
	servers, err := pool(o.CA)
	if err != nil {
		return r, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, RootCAs: servers}
	conns := make([]*load.Conn, o.Connections)
	for i := range conns {
		if conns[i], err = load.NewConn("https://"+o.Address+echoPath(o.Fleet), conf, 5*time.Second); err != nil {
			return r, err
		}
		defer conns[i].Close()
		if err := conns[i].Connect(ctx); err != nil {
			return r, err
		}
	}
	if _, err := echoFor(ctx, conns, o, o.Warmup); err != nil {
		return r, err
	}
	server := load.Processes{o.PID}
	before, err := server.Usage()
	if err != nil {
		return r, err
	}
	began := time.Now()
	latency, err := echoFor(ctx, conns, o, o.Duration)
	if err != nil {
		return r, err
	}
	r.Seconds = time.Since(began).Seconds()
	after, err := server.Usage()
	if err != nil {
		return r, err
	}
	r.Requests, r.CPU = latency.Len(), (after.CPU - before.CPU).Seconds()
	r.P99 = milliseconds(latency.Quantile(.99))
	if r.CPU == 0 {
		return r, errors.New("the echo was too short to be measured: processor time counts in hundredths of a second")
	}
	return r, nil
}

// echoFor sends for a time, one request at a time on each connection.
func echoFor(ctx context.Context, conns []*load.Conn, o echoOrder, d time.Duration) (*load.Histogram, error) {
	var stop atomic.Bool
	time.AfterFunc(d, func() { stop.Store(true) })
	size := o.Sizes[o.Fleet]
	body := bytes.Repeat([]byte{'x'}, size.Request)
	var (
		working sync.WaitGroup
		mu      sync.Mutex
		all     load.Histogram
		failed  error
	)
	for _, c := range conns {
		working.Go(func() {
			var mine load.Histogram
			var err error
			for !stop.Load() && err == nil {
				before := time.Now()
				reply, e := c.Send(ctx, body)
				if err = e; err == nil && len(reply.Body) != size.Answer {
					err = fmt.Errorf("echo: %d bytes came back, want %d", len(reply.Body), size.Answer)
				}
				mine.Add(time.Since(before))
			}
			mu.Lock()
			defer mu.Unlock()
			all.Merge(&mine)
			failed = errors.Join(failed, err)
		})
	}
	working.Wait()
	return &all, failed
}

// child is what this program does when it runs itself again: its order comes on
// standard input.
func child(ctx context.Context, what string, in io.Reader, out io.Writer) error {
	orders := json.NewDecoder(in)
	if what == "wire-echo" || what == "wire-hosts" {
		var o wireOrder
		if err := orders.Decode(&o); err != nil {
			return err
		}
		if what == "wire-echo" {
			return serveWireEcho(ctx, o, out)
		}
		r, err := talkToElements(ctx, o)
		if err != nil {
			return err
		}
		return json.NewEncoder(out).Encode(r)
	}
	var o echoOrder
	if err := orders.Decode(&o); err != nil {
		return err
	}
	switch what {
	case "echo-server":
		return serveEcho(ctx, o, out)
	case "echo-load":
		r, err := loadEcho(ctx, o)
		if err != nil {
			return err
		}
		return json.NewEncoder(out).Encode(r)
	}
	return fmt.Errorf("there is no %s", what)
}
