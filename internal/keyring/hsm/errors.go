package hsm

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"joinery/internal/keyring"
)

// Errors of opening and provisioning a token. Those of a lost token wrap
// keyring.ErrToken.
var (
	// ErrModule: the token's library cannot be loaded, or fails to start.
	ErrModule = errors.New("the PKCS #11 library cannot be used")
	// ErrNoToken: no token, or more than one, has that label.
	ErrNoToken = errors.New("no such token")
	// ErrPIN: the token refused the PIN. It is never tried again: a token locks
	// itself after a few.
	ErrPIN = fmt.Errorf("%w; it is not tried again", keyring.ErrPIN)
	// ErrObject: an object that must be in the token is missing, is there twice,
	// or has rights that it must not have.
	ErrObject = errors.New("the token's keys are not as they must be")
	// ErrTemplate: the token enforces unwrap templates, and the join KEK has none:
	// whoever holds the PIN could read every imported root key.
	ErrTemplate = errors.New("the join KEK lets imported root keys be read")
	// ErrExists: the token has such an object already; nothing is overwritten.
	ErrExists = errors.New("the token has that already")
	// ErrShare: what should hold a shared master key does not.
	ErrShare = errors.New("not a master key that was shared with this token")
)

// lost are the answers after which a session, or the login, is gone. A handle
// that is not known any more is one of them: long-lived handles go when a token is
// logged out.
var lost = map[pkcs11.Error]bool{
	pkcs11.CKR_SESSION_HANDLE_INVALID:        true,
	pkcs11.CKR_SESSION_CLOSED:                true,
	pkcs11.CKR_USER_NOT_LOGGED_IN:            true,
	pkcs11.CKR_TOKEN_NOT_PRESENT:             true,
	pkcs11.CKR_TOKEN_NOT_RECOGNIZED:          true,
	pkcs11.CKR_DEVICE_REMOVED:                true,
	pkcs11.CKR_DEVICE_ERROR:                  true,
	pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED:      true,
	pkcs11.CKR_OBJECT_HANDLE_INVALID:         true,
	pkcs11.CKR_KEY_HANDLE_INVALID:            true,
	pkcs11.CKR_WRAPPING_KEY_HANDLE_INVALID:   true,
	pkcs11.CKR_UNWRAPPING_KEY_HANDLE_INVALID: true,
}

// wrongPIN are the answers to a login that must not be repeated.
var wrongPIN = map[pkcs11.Error]bool{
	pkcs11.CKR_PIN_INCORRECT:            true,
	pkcs11.CKR_PIN_INVALID:              true,
	pkcs11.CKR_PIN_LEN_RANGE:            true,
	pkcs11.CKR_PIN_EXPIRED:              true,
	pkcs11.CKR_PIN_LOCKED:               true,
	pkcs11.CKR_USER_PIN_NOT_INITIALIZED: true,
}

// answer gives the token's own answer in err, if there is one.
func answer(err error) (pkcs11.Error, bool) {
	var rv pkcs11.Error
	ok := errors.As(err, &rv)
	return rv, ok
}

func isAnswer(err error, rv uint) bool {
	have, ok := answer(err)
	return ok && have == pkcs11.Error(rv)
}

// refused tells whether the token itself refused an operation, and is still
// there. Tokens answer a damaged blob in many ways (SoftHSM by CKR_GENERAL_ERROR),
// so that the caller says what it means.
func refused(err error) bool {
	_, ok := answer(err)
	return ok && !errors.Is(err, keyring.ErrToken)
}

// failed says which operation failed.
func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
