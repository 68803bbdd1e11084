package rekey

import (
	"context"
	"encoding/hex"
	"errors"
	"sync"

	"github.com/go-json-experiment/json"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/rekeyfile"
	"joinery/lorawan"
)

// noteJoinsOf notes that a device which was handed over joined here, before it goes on
// and its joins are those of another key set. A join that can never be signed keeps
// nobody from going: the owner's word confirms it.
func (s *Service) noteJoinsOf(ctx context.Context, device joinery.DeviceID) error {
	list, err := s.store.JoinedArrivalsOf(ctx, device)
	for _, a := range list {
		if err == nil {
			err = s.noteJoin(ctx, a)
		}
		if errors.Is(err, errUnsigned) && !errors.Is(err, keyring.ErrToken) {
			err = nil
		}
	}
	return err
}

// noteJoins notes which devices of a Join Server joined here since: at most a page at
// a time, and the next time those after it, so that none whose join cannot be signed
// keeps others waiting.
func (s *Service) noteJoins(ctx context.Context, from joinery.JoinServer) error {
	start := s.turns.from(from.ID)
	list, err := s.store.JoinedArrivals(ctx, from.ID, start, s.page)
	if err == nil && start != 0 && len(list) < s.page {
		var first []joinery.Arrival
		first, err = s.store.JoinedArrivals(ctx, from.ID, 0, s.page-len(list))
		for _, a := range first {
			if a.ID <= start {
				list = append(list, a)
			}
		}
	}
	if err != nil {
		return err
	}
	next := joinery.ArrivalID(0)
	if len(list) == s.page {
		next = list[len(list)-1].ID
	}
	s.turns.goOn(from.ID, next)
	var unsigned error
	n := 0
	for _, a := range list {
		err := s.noteJoin(ctx, a)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errUnsigned):
			unsigned = err
			n++
		case err != nil:
			return err
		}
	}
	if n > 0 {
		s.log.Warn("joins of devices that were handed over cannot be signed now", "server", from.Name, "devices", n, "error", unsigned)
	}
	return nil
}

// turns remembers for each Join Server behind which arrival to look for joins next.
type turns struct {
	mu    sync.Mutex
	after map[joinery.JoinServerID]joinery.ArrivalID
}

func (t *turns) from(id joinery.JoinServerID) joinery.ArrivalID {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.after[id]
}

func (t *turns) goOn(id joinery.JoinServerID, after joinery.ArrivalID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.after == nil {
		t.after = map[joinery.JoinServerID]joinery.ArrivalID{}
	}
	t.after[id] = after
}

// errUnsigned says that a join was seen and its accept cannot be made again.
var errUnsigned = errors.New("the join-accept cannot be made again")

// noteJoin notes that the device of an arrival joined here. errUnsigned.
func (s *Service) noteJoin(ctx context.Context, a joinery.Arrival) error {
	state, err := s.store.RekeyingDevice(ctx, a.Device)
	if joinery.CodeOf(err) == joinery.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	j, ok, err := s.transcript(ctx, state, a.Ref, a.Cookie)
	if err != nil || !ok {
		return err
	}
	line, err := json.Marshal(rekeyfile.Entry{Join: &j})
	if err != nil {
		return err
	}
	entry := s.arrivalEntry(a, joinery.AuditRekeyReceived, "server")
	entry.Detail["transcript"] = hex.EncodeToString(j.Transcript)
	return s.store.NoteArrivalJoined(ctx, a.ID, line, entry)
}

// transcript gives that of the newest join of a device with the key set that it has;
// ok is false where there was none. errUnsigned.
func (s *Service) transcript(ctx context.Context, state joinery.ActivationState, order string, cookie lorawan.Cookie) (j rekeyfile.Joined, ok bool, err error) {
	a, ok, err := s.newestJoin(ctx, state)
	if err != nil || !ok {
		return j, false, err
	}
	hash, err := s.keys.AcceptHash(ctx, state.KeySet, a)
	if err != nil {
		return j, false, joinery.WrapError(joinery.CodeUnavailable, errors.Join(errUnsigned, err), "the join cannot be signed for now; try again later")
	}
	j = rekeyfile.Joined{
		Order: order, Cookie: cookie, JoinEUI: a.JoinEUI, DevEUI: a.DevEUI,
		At: a.At, DevNonce: lorawan.DevNonce(a.Count), JoinNonce: a.JoinNonce, Request: a.FrameHash[:], Accept: hash[:],
	}
	j.Transcript = j.TranscriptHash()
	return j, true, nil
}

// newestJoin finds the newest join of a device with the key set that it has, behind
// the rejoins that came since.
func (s *Service) newestJoin(ctx context.Context, state joinery.ActivationState) (a joinery.Activation, ok bool, err error) {
	const look, pages = 100, 20
	var before joinery.ActivationID
	for range pages {
		list, err := s.store.ActivationsBefore(ctx, state.Device.ID, before, look)
		if err != nil {
			return a, false, err
		}
		for _, a := range list {
			switch {
			case a.KeySet != state.KeySet.ID:
				return a, false, nil
			case a.Type == joinery.JoinTypeJoin && a.JoinEUI == state.Device.JoinEUI:
				return a, true, nil
			}
			before = a.ID
		}
		if len(list) < look {
			break
		}
	}
	return a, false, nil
}
