package activation_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"joinery"
	"joinery/internal/activation"
	"joinery/internal/keyring"
)

// A token that is away for a moment is no defect: networks are told to try again.
func TestErrorsOfCustody(t *testing.T) {
	for _, c := range []struct {
		err  error
		want joinery.Code
	}{
		{keyring.ErrMIC, joinery.CodeMIC},
		{keyring.ErrNoKEK, joinery.CodeKEKMissing},
		{context.DeadlineExceeded, joinery.CodeUnavailable},
		{fmt.Errorf("%w: the session was lost", keyring.ErrToken), joinery.CodeUnavailable},
		{keyring.ErrIntegrity, joinery.CodeInternal},
		{errors.New("another"), joinery.CodeInternal},
	} {
		if got := joinery.CodeOf(activation.KeyringError(c.err)); got != c.want {
			t.Errorf("%v: %s; want %s", c.err, got, c.want)
		}
	}
}
