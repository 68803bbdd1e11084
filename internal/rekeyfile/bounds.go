package rekeyfile

import (
	"github.com/go-json-experiment/json"

	"joinery/internal/exposure"
	"joinery/internal/jsonlist"
	"joinery/internal/seal"
)

// Bounds of one file.
const (
	// MaxDevices is the most devices of a ticket or hand-over, and the most entries of a
	// page of receipts or of an answer to an offer.
	MaxDevices = 200
	// MaxKeySets is the most key sets of all devices of a hand-over together.
	MaxKeySets = 17 * MaxDevices
	// maxTimes is the most disclosures of all devices of a hand-over together: more than
	// a file of four mebibytes has room for, if each says something. exposure.MaxTimes
	// bounds those of one.
	maxTimes = 32 * exposure.MaxTimes
	// maxFormer is the most former JoinEUIs of all rows together. A hand-over has none;
	// its check says so of the device that does.
	maxFormer = MaxKeySets
)

// bounded reads the lists of one file and counts while it does: a file of four
// mebibytes may name a million devices, each of which takes far more room once it is
// read. ErrTooMany.
func bounded() *json.Unmarshalers {
	var devices, sets, entries, times, former int
	return json.JoinUnmarshalers(
		jsonlist.Most[HandedOver](MaxDevices, &devices, ErrTooMany),
		jsonlist.Most[Generation](MaxKeySets-MaxDevices, &sets, ErrTooMany),
		jsonlist.Most[exposure.Time](maxTimes, &times, ErrTooMany),
		jsonlist.Most[seal.FormerNonces](maxFormer, &former, ErrTooMany),
		jsonlist.Most[Order](MaxDevices, &devices, ErrTooMany),
		jsonlist.Most[Told](MaxDevices, &entries, ErrTooMany),
		jsonlist.Most[Joined](MaxDevices, &entries, ErrTooMany),
	)
}
