package client

import (
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"time"
)

// CallOption changes how one call is sent, or tells more of its answer.
type CallOption func(*callOptions)

type callOptions struct {
	header http.Header
	etag   *string
}

// IfMatch lets a call change a thing only as long as it is what tag stands for:
// the ETag under which it was read. Otherwise the call is refused with status
// 412 and joinery.CodePrecondition.
func IfMatch(tag string) CallOption {
	return func(o *callOptions) { o.header.Set("If-Match", tag) }
}

// IdempotencyKey names a call, so that sending it again does nothing twice: for
// a day the server answers a call of the same key, caller and content with the
// answer of the first.
func IdempotencyKey(key string) CallOption {
	return func(o *callOptions) { o.header.Set("Idempotency-Key", key) }
}

// RequestID is the name under which the server's log has this call.
func RequestID(id string) CallOption {
	return func(o *callOptions) { o.header.Set(RequestIDHeader, id) }
}

// ReadETag puts the ETag of the answer into tag, for IfMatch; "" where the answer
// has none.
func ReadETag(tag *string) CallOption {
	return func(o *callOptions) { o.etag = tag }
}

func optionsOf(list []CallOption) callOptions {
	o := callOptions{header: http.Header{}}
	for _, option := range list {
		option(&o)
	}
	return o
}

// get reads one thing.
func get[T any](ctx context.Context, c *Client, path string, query url.Values, opts ...CallOption) (out T, err error) {
	err = c.do(ctx, http.MethodGet, path, query, nil, &out, opts...)
	return out, err
}

// list reads a whole listing, all pages of it.
func list[T any](ctx context.Context, c *Client, path string, query url.Values, opts ...CallOption) ([]T, error) {
	all := []T{}
	if query == nil {
		query = url.Values{}
	}
	for {
		p, err := get[Page[T]](ctx, c, path, query, opts...)
		if err != nil {
			return nil, err
		}
		all = append(all, p.Items...)
		if p.Next == "" {
			return all, nil
		}
		query.Set("after", p.Next)
	}
}

// send posts or puts in and reads what comes of it.
func send[T any](ctx context.Context, c *Client, method, path string, in any, opts ...CallOption) (out T, err error) {
	err = c.do(ctx, method, path, nil, in, &out, opts...)
	return out, err
}

// act does something that has no answer but that it was done.
func (c *Client) act(ctx context.Context, method, path string, query url.Values, in any, opts ...CallOption) error {
	return c.do(ctx, method, path, query, in, nil, opts...)
}

// pages ranges over what read gives, page by page from after on, until a page
// has no next.
func pages[T any](after string, read func(after string) (Page[T], error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for after := after; ; {
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

// WaitReady asks until the server answers and is ready, or ctx ends.
func (c *Client) WaitReady(ctx context.Context) error {
	for {
		s, err := get[Status](ctx, c, "/status", nil)
		if err == nil && s.Ready {
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("not ready: %s", s.Reason)
			}
			return fmt.Errorf("%w (%w)", ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// raw sends body, which is of a kind, and gives an answer that is no JSON as it
// came.
func raw(ctx context.Context, c *Client, method, path string, query url.Values, kind string, body io.Reader, opts ...CallOption) ([]byte, error) {
	req, err := c.newRequest(ctx, method, path, query, nil)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Body = io.NopCloser(body)
		req.Header.Set("Content-Type", kind)
	}
	req.Header.Set("Accept", "*/*")
	maps.Copy(req.Header, optionsOf(opts).header)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return nil, readProblem(res)
	}
	return io.ReadAll(io.LimitReader(res.Body, maxAnswer))
}
