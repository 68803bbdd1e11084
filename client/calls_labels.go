package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"

	"joinery"
)

// OwnerTokens reads the owner tokens of at most MaxLabels devices, one result for
// each and in their order. The log records every token that is read.
func (c *Client) OwnerTokens(ctx context.Context, in OwnerTokensRequest) ([]LabelToken, error) {
	l, err := send[List[LabelToken]](ctx, c, http.MethodPost, "/owner-tokens", in)
	return l.Items, err
}

// ImportedDevices ranges over the devices of an import, in the file's order.
func (c *Client) ImportedDevices(ctx context.Context, id joinery.ImportID) iter.Seq2[ImportedDevice, error] {
	return pages(func(after string) (Page[ImportedDevice], error) {
		return page[ImportedDevice](ctx, c, "/imports/"+id.String()+"/devices", url.Values{}, after)
	})
}
