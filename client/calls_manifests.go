package client

import (
	"context"

	"joinery"
)

// ManifestEntry reads the signed entry with which a device came in.
func (c *Client) ManifestEntry(ctx context.Context, id joinery.DeviceID) (ManifestEntry, error) {
	return get[ManifestEntry](ctx, c, "/devices/"+id.String()+"/manifest-entry", nil)
}
