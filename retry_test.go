package joinery

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestLater(t *testing.T) {
	refused := Errorf(CodeRateLimited, "too often")
	err := fmt.Errorf("outside: %w", Later(refused, time.Minute))
	if RetryAfter(err) != time.Minute || CodeOf(err) != CodeRateLimited || MessageOf(err) != "too often" || !errors.Is(err, refused) {
		t.Errorf("%v after %s", err, RetryAfter(err))
	}
	if after := RetryAfter(refused); after != 0 {
		t.Errorf("a refusal that does not tell: %s", after)
	}
}
