package client

import (
	"context"
	"iter"

	"joinery"
)

// Devices ranges over all devices that f selects, page by page. It ends with the
// first error, which is the last pair.
func (c *Client) Devices(ctx context.Context, f DeviceFilter) iter.Seq2[Device, error] {
	return pages(func(after string) (Page[Device], error) { return c.DevicesPage(ctx, f, after) })
}

// ImportErrors ranges over the rows of an import that were refused, in the
// file's order.
func (c *Client) ImportErrors(ctx context.Context, id joinery.ImportID) iter.Seq2[RowResult, error] {
	return pages(func(after string) (Page[RowResult], error) { return c.ImportErrorsPage(ctx, id, after) })
}

// Audit ranges over the audit log from after (0: from its beginning), oldest
// first.
func (c *Client) Audit(ctx context.Context, after string) iter.Seq2[AuditEntry, error] {
	first := after
	return pages(func(next string) (Page[AuditEntry], error) {
		if next == "" {
			next = first
		}
		return c.AuditPage(ctx, 0, next)
	})
}

// pages ranges over what read gives, page by page, until a page has no next.
func pages[T any](read func(after string) (Page[T], error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for after := ""; ; {
			p, err := read(after)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range p.Items {
				if !yield(item, nil) {
					return
				}
			}
			if p.Next == "" {
				return
			}
			after = p.Next
		}
	}
}
