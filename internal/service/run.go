package service

import (
	"context"
	"log/slog"
	"time"

	"joinery"
)

const (
	lookEvery = 20 * time.Second // at the clock, what is due, and what others changed
	seeEvery  = 10 * time.Minute // it is written down what time it is
	remindOne = 200              // at once: joins wait meanwhile
	remindMax = 50               // times that, in one look
)

// Run watches the clock and reminds owners, until ctx ends. Every server does:
// what is due is told once, whoever is first.
func (s *Service) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for failing := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := s.Look(ctx)
		if err != nil && ctx.Err() == nil && !failing {
			s.log.Warn("service terms are not looked after now", slog.Any("error", err))
		}
		failing = err != nil
	}
}

// Look does what is to be done now.
func (s *Service) Look(ctx context.Context) error {
	if err := s.reload(ctx); err != nil {
		return err
	}
	if err := s.followClock(ctx); err != nil {
		return err
	}
	for range remindMax {
		if s.guard.look() != "" || s.hold() != nil {
			return nil
		}
		n, err := s.store.RemindServices(ctx, s.timestamp(), remindOne)
		if err != nil || n < remindOne {
			return err
		}
	}
	return nil
}

// followClock brings together what this server and the others know of the clock.
func (s *Service) followClock(ctx context.Context) error {
	known, err := s.store.ServiceClock(ctx)
	if err != nil {
		return err
	}
	now := s.now()
	confirmed := known.Confirmed != s.confirmed.Load() && known.DoubtedAt.IsZero()
	if confirmed && now.Sub(known.SeenAt).Abs() <= joinery.MaxClockStep { // at another server, whose clock is as ours
		s.believe(known)
	}
	if why := s.guard.look(); why != "" || !known.DoubtedAt.IsZero() || now.Sub(known.SeenAt).Abs() >= seeEvery {
		return s.seeClock(ctx)
	}
	return nil
}

func (s *Service) believe(known joinery.ServiceClock) {
	s.guard.believe()
	s.confirmed.Store(known.Confirmed)
}

// seeClock writes down the time, or the doubt, and takes over what stands there.
func (s *Service) seeClock(ctx context.Context) error {
	known, err := s.store.SeeClock(ctx, s.now(), s.guard.look())
	if err != nil {
		return err
	}
	if !known.DoubtedAt.IsZero() {
		before := s.guard.look()
		s.guard.doubt(known.Why)
		if before != known.Why {
			s.log.Error("the clock is in doubt: no service lapses until its operator confirms the clock with joinctl server confirm-clock", "why", known.Why)
		}
		return nil
	}
	s.confirmed.Store(known.Confirmed)
	return nil
}

// ClockState is the clock as the operator sees it.
type ClockState struct {
	joinery.ServiceClock
	Now time.Time
	// Lapsed counts devices whose joins are refused, or would be once the clock
	// is confirmed as it is.
	Lapsed int64
}

// ClockState tells the operator whether the clock is in doubt, and what follows
// from confirming it.
func (s *Service) ClockState(ctx context.Context, caller joinery.Caller) (c ClockState, err error) {
	if err := caller.RequireOperator(); err != nil {
		return c, err
	}
	if err := s.followClock(ctx); err != nil {
		return c, err
	}
	c.Now = s.timestamp()
	if c.ServiceClock, err = s.store.ServiceClock(ctx); err != nil {
		return c, err
	}
	c.Lapsed, err = s.store.CountLapsed(ctx, c.Now)
	return c, err
}

// ConfirmClock takes the operator's word that the clock is right.
func (s *Service) ConfirmClock(ctx context.Context, caller joinery.Caller) (ClockState, error) {
	if err := caller.RequireOperator(); err != nil {
		return ClockState{}, err
	}
	if err := s.followClock(ctx); err != nil { // a doubt of this server may not be written down yet
		return ClockState{}, err
	}
	known, err := s.store.ConfirmClock(ctx, s.entry(caller, joinery.AuditClockConfirmed, 0, nil))
	if err != nil {
		return ClockState{}, err
	}
	s.believe(known)
	return s.ClockState(context.WithoutCancel(ctx), caller)
}

// Doubt tells why the clock is in doubt, "" for not.
func (s *Service) Doubt() string { return s.guard.look() }
