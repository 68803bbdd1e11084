package fleet

import (
	"context"

	"joinery"
)

// Served gives every range of JoinEUIs that this server answers for, in order,
// and not whose they are: that may be told to anybody.
func (s *Service) Served(context.Context) ([]joinery.EUIRange, error) {
	current, err := s.directory.fresh()
	if err != nil {
		return nil, err
	}
	served := make([]joinery.EUIRange, len(current.ranges))
	for i, r := range current.ranges {
		served[i] = r.EUIRange
	}
	return served, nil
}
