package hsm

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

const (
	flagPINSet           = 0x00000008
	flagTokenInitialised = 0x00000400
)

// Initialise makes an empty token of that label, with the PIN of opt for its user,
// in the first slot that has none; a token that is there already and whose user has
// no PIN yet (NSS) gets one. Tokens of hardware are initialised by their maker's
// tools; this is for those made of software. ErrExists where a token in use has the
// label.
func Initialise(opt Options, securityOfficer []byte) (err error) {
	m, err := openModule(opt.Module, opt.InitArgs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.release()) }()
	if here, err := slot(m.api, opt.Token); err == nil {
		if info, err := m.ctx.GetTokenInfo(here); err != nil || info.Flags&flagPINSet != 0 {
			return errors.Join(fmt.Errorf("%w: a token %q", ErrExists, opt.Token), err)
		}
		return setPIN(m.ctx, here, securityOfficer, opt.PIN)
	}
	free, err := emptySlot(m.ctx)
	if err != nil {
		return err
	}
	if err := m.ctx.InitToken(free, string(securityOfficer), opt.Token); err != nil {
		return failed("initialising a token", err)
	}
	made, err := slot(m.api, opt.Token) // some libraries give it another number
	if err != nil {
		return err
	}
	return setPIN(m.ctx, made, securityOfficer, opt.PIN)
}

func emptySlot(ctx *pkcs11.Ctx) (uint, error) {
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		return 0, failed("listing tokens", err)
	}
	for _, s := range slots {
		if info, err := ctx.GetTokenInfo(s); err == nil && info.Flags&flagTokenInitialised == 0 {
			return s, nil
		}
	}
	return 0, fmt.Errorf("%w: no slot is free for a new one", ErrNoToken)
}

// setPIN gives a new token's user a PIN.
func setPIN(ctx *pkcs11.Ctx, slot uint, securityOfficer, pin []byte) (err error) {
	s, err := ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|writable)
	if err != nil {
		return failed("opening a session", err)
	}
	defer func() { err = errors.Join(err, ctx.CloseSession(s)) }()
	if err := ctx.Login(s, pkcs11.CKU_SO, string(securityOfficer)); err != nil {
		return failed("logging in as security officer", err)
	}
	defer func() { err = errors.Join(err, ctx.Logout(s)) }()
	return failed("setting the user's PIN", ctx.InitPIN(s, string(pin)))
}
