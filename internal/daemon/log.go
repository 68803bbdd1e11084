package daemon

import (
	"io"
	"log/slog"

	"joinery/internal/config"
)

// NewLogger makes the logger that c asks for. c has been checked: an unknown
// level or format is a defect, and falls back to info and text.
func NewLogger(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
