package client

import (
	"bytes"
	"context"
	"net/http"
)

// UnsealPath is where an operator opens the keys of a server that starts sealed,
// below BasePath and on the operator socket alone.
const UnsealPath = "/unseal"

// MaxUnseal is how long what opens them may be, in bytes.
const MaxUnseal = 16 << 10

// Unseal gives a server that starts sealed what opens its key file: a passphrase, or
// age identities. One whose keys are open reads its key file anew. It goes through the
// operator socket alone; text is the caller's to clear. A CodeConflict is a server that
// opens its keys by itself.
func (c *Client) Unseal(ctx context.Context, text []byte) error {
	req, err := c.newRequest(ctx, http.MethodPost, UnsealPath, nil, nil)
	if err != nil {
		return err
	}
	req.Body, req.ContentLength = http.NoBody, int64(len(text))
	if len(text) > 0 {
		req.Body = readCloser{bytes.NewReader(text)}
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	res, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusNoContent {
		return readProblem(res)
	}
	return nil
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }
