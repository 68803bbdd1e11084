package custodylog

import (
	"context"
	"encoding/binary"

	"joinery"
	"joinery/auditlog"
	"joinery/internal/tlog"
)

// Checkpoint gives the newest signed checkpoint, for everybody; CodeNotFound
// before the first.
func (s *Service) Checkpoint(ctx context.Context) (string, error) {
	p, err := s.store.LogCheckpoint(ctx)
	return p.Note, err
}

// Tile gives a tile of width hashes, for everybody; CodeNotFound where the newest
// checkpoint does not cover it.
func (s *Service) Tile(ctx context.Context, level int, index int64, width int) ([]byte, error) {
	if err := s.covered(ctx, level, index, width); err != nil {
		return nil, err
	}
	data, err := tlog.Tile(source{ctx, s.store}, level, index)
	if err != nil {
		return nil, err
	}
	return data[:min(len(data), width*32)], nil
}

// EntryBundle gives width records, each behind its length in two bytes, for
// everybody: a record says nothing without payload and salt.
func (s *Service) EntryBundle(ctx context.Context, index int64, width int) ([]byte, error) {
	if err := s.covered(ctx, 0, index, width); err != nil {
		return nil, err
	}
	records, err := source{ctx, s.store}.Records(index)
	if err != nil {
		return nil, err
	}
	var b []byte
	for range width {
		b = binary.BigEndian.AppendUint16(b, auditlog.RecordSize)
		b = append(b, records[:auditlog.RecordSize]...)
		records = records[auditlog.RecordSize:]
	}
	return b, nil
}

func (s *Service) covered(ctx context.Context, level int, index int64, width int) error {
	p, err := s.store.LogCheckpoint(ctx)
	if err == nil && (width < 1 || index < 0 || level < 0 || level > 7 || width > tlog.WidthAt(p.Size, level, index)) {
		err = joinery.Errorf(joinery.CodeNotFound, "the newest checkpoint does not cover this tile")
	}
	return err
}
