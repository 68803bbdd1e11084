package main

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"

	"joinery/internal/keyring/worker"
)

// logger logs as the server does, once that has said how. It is set up before the
// server is heard, since what goes wrong by then wants to be told, too.
type logger struct {
	to io.Writer
	as atomic.Pointer[slog.Handler]
}

// configure has c say how to log. What it says is the server's own configuration,
// which was checked.
func (l *logger) configure(c worker.TokenConfig) {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // else info
	o := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(l.to, o)
	if c.LogFormat == "json" {
		h = slog.NewJSONHandler(l.to, o)
	}
	h = h.WithAttrs([]slog.Attr{slog.String("program", "joinery-hsm")})
	l.as.Store(&h)
}

func (l *logger) handler() slog.Handler {
	if h := l.as.Load(); h != nil {
		return *h
	}
	return slog.NewTextHandler(l.to, nil)
}

// Enabled implements slog.Handler.
func (l *logger) Enabled(ctx context.Context, level slog.Level) bool {
	return l.handler().Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (l *logger) Handle(ctx context.Context, r slog.Record) error { return l.handler().Handle(ctx, r) }

// WithAttrs implements slog.Handler.
func (l *logger) WithAttrs(attrs []slog.Attr) slog.Handler { return l.handler().WithAttrs(attrs) }

// WithGroup implements slog.Handler.
func (l *logger) WithGroup(name string) slog.Handler { return l.handler().WithGroup(name) }
