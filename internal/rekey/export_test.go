package rekey

import "context"

// SetPage has so few arrivals looked at, at a time, for joins.
func (s *Service) SetPage(n int) { s.page = n }

// Turn is one turn of a Runner.
func (r *Runner) Turn(ctx context.Context) { r.turn(ctx) }
