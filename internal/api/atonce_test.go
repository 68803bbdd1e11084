package api

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"joinery"
)

// Whoever finds no room for rows waits, until there is some, the request ends, or
// importWait is over.
func TestImportsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{imports: make(chan struct{}, importsAtOnce)}
		for range importsAtOnce {
			if err := s.enterImport(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		err := s.enterImport(t.Context())
		if joinery.CodeOf(err) != joinery.CodeUnavailable || time.Since(began) != importWait {
			t.Errorf("without room: %v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.enterImport(ctx); joinery.CodeOf(err) != joinery.CodeUnavailable {
			t.Errorf("a request that ended: %v", err)
		}
		go func() {
			time.Sleep(time.Second)
			<-s.imports
		}()
		began = time.Now()
		if err := s.enterImport(t.Context()); err != nil || time.Since(began) != time.Second {
			t.Errorf("with room after a second: %v after %v", err, time.Since(began))
		}
	})
}
