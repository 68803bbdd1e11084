package rekey

// SetPage has so few arrivals looked at, at a time, for joins.
func (s *Service) SetPage(n int) { s.page = n }
