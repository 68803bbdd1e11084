//go:build !linux

package bus

import (
	"context"
	"net"
)

// ServeI2C serves connections of bare transactions until ctx ends, and then closes all
// of them.
func ServeI2C(ctx context.Context, l net.Listener, e Elements) error { return Serve(ctx, l, I2C, e) }
