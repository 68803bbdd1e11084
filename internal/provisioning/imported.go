package provisioning

import (
	"context"

	"joinery"
)

// Imported gives a page, of at most limit, of the devices that an import's rows are, new ones and
// those that were there already, in the file's order from row from on; next is
// the row at which the next page begins, 0 for none. A dry run has none.
func (s *Service) Imported(ctx context.Context, caller joinery.Caller, id joinery.ImportID, from uint64, limit int) (devices []joinery.ImportedDevice, next uint64, err error) {
	_, run, err := s.find(ctx, caller, id)
	if err != nil || run != nil {
		return nil, 0, err
	}
	return s.store.ImportedDevices(ctx, id, from, limit)
}
