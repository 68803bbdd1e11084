package ttjs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"joinery/lorawan"
)

// claimClient claims devices as the Device Claiming Server of The Things Stack
// does: the same paths, headers and bodies, and the same reading of what comes
// back. What it makes of an answer is all that its user ever sees.
type claimClient struct {
	url   string
	http  *http.Client
	netID lorawan.NetID
	nsid  *lorawan.EUI64
	asID  string
	kek   *clientKEK
}

type clientKEK struct {
	Label string `json:"label"`
	Key   string `json:"key"`
}

func newClaimClient(url string, config *tls.Config) *claimClient {
	return &claimClient{url: url, http: &http.Client{Transport: &http.Transport{TLSClientConfig: config}}}
}

// What the client's user is told.
var (
	errUserNotProvisioned = errors.New("the device is not provisioned")
	errUserNotClaimed     = errors.New("the device is not claimed")
	errUserDenied         = errors.New("the device is claimed already, or the token is wrong")
	errUserCredentials    = errors.New("unauthenticated")
)

// userInternal is an internal error, with the text that came.
type userInternal struct{ text string }

func (e userInternal) Error() string { return "internal error: " + e.text }

// userStatus is an error that is told by its HTTP status.
type userStatus int

func (e userStatus) Error() string { return fmt.Sprintf("HTTP status %d", int(e)) }

// userBatch is errors by DevEUI.
type userBatch map[lorawan.EUI64]string

func (e userBatch) Error() string { return fmt.Sprintf("%d devices failed", len(e)) }

func (c *claimClient) send(ctx context.Context, method, path string, body any) (status int, text []byte, err error) {
	var in io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		in = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, in)
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err = io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

// refusal reads {"message": …}; a body that is something else is an empty one.
func refusal(text []byte) string {
	var body struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(text, &body)
	return body.Message
}

// Claim claims a device; lock is always asked for.
func (c *claimClient) Claim(ctx context.Context, devEUI lorawan.EUI64, token string) error {
	lock := true
	body := struct {
		OwnerToken           string     `json:"ownerToken"`
		HomeNetID            string     `json:"homeNetID"`
		HomeNSID             *string    `json:"homeNSID,omitempty"`
		ASID                 string     `json:"asID"`
		RegenerateOwnerToken *bool      `json:"regenerateOwnerToken,omitempty"`
		Lock                 *bool      `json:"lock,omitempty"`
		KEK                  *clientKEK `json:"kek,omitempty"`
	}{OwnerToken: token, HomeNetID: c.netID.String(), ASID: c.asID, Lock: &lock, KEK: c.kek}
	if c.nsid != nil {
		nsid := c.nsid.String()
		body.HomeNSID = &nsid
	}
	status, text, err := c.send(ctx, http.MethodPut, "/api/v2/devices/"+devEUI.String()+"/claim", body)
	switch {
	case err != nil:
		return err
	case status >= 200 && status <= 299:
		return nil
	case status == http.StatusBadRequest:
		return userInternal{refusal(text)}
	case status == http.StatusNotFound:
		return errUserNotProvisioned
	case status == http.StatusForbidden && refusal(text) == "claim failed with given owner token":
		return errUserDenied
	case status == http.StatusForbidden:
		return userInternal{refusal(text)}
	}
	return others(status)
}

// Status gives the home network of a device that this client claimed.
func (c *claimClient) Status(ctx context.Context, devEUI lorawan.EUI64) (netID lorawan.NetID, nsid *lorawan.EUI64, locked bool, err error) {
	status, text, err := c.send(ctx, http.MethodGet, "/api/v2/devices/"+devEUI.String()+"/claim", nil)
	if err != nil {
		return netID, nil, false, err
	}
	if status < 200 || status > 299 {
		return netID, nil, false, held(status, text)
	}
	var body struct {
		HomeNetID string  `json:"homeNetID"`
		HomeNSID  *string `json:"homeNSID,omitempty"`
		Locked    bool    `json:"locked"`
	}
	if err := json.Unmarshal(text, &body); err != nil {
		return netID, nil, false, err
	}
	if netID, err = lorawan.ParseNetID(body.HomeNetID); err != nil {
		return netID, nil, false, err
	}
	if body.HomeNSID != nil {
		parsed, err := lorawan.ParseEUI64(*body.HomeNSID)
		if err != nil {
			return netID, nil, false, err
		}
		nsid = &parsed
	}
	return netID, nsid, body.Locked, nil
}

// Unclaim lets a device go.
func (c *claimClient) Unclaim(ctx context.Context, devEUI lorawan.EUI64) error {
	status, text, err := c.send(ctx, http.MethodDelete, "/api/v2/devices/"+devEUI.String()+"/claim", nil)
	if err != nil || status >= 200 && status <= 299 {
		return err
	}
	return held(status, text)
}

func held(status int, text []byte) error {
	switch status {
	case http.StatusBadRequest:
		return userInternal{refusal(text)}
	case http.StatusNotFound:
		return errUserNotClaimed
	case http.StatusForbidden:
		return errUserDenied
	}
	return others(status)
}

func others(status int) error {
	if status == http.StatusUnauthorized {
		return errUserCredentials
	}
	return userStatus(status)
}

// UnclaimAll lets devices go in one request.
func (c *claimClient) UnclaimAll(ctx context.Context, devEUIs ...lorawan.EUI64) error {
	texts := make([]string, len(devEUIs))
	for i, e := range devEUIs {
		texts[i] = e.String()
	}
	status, text, err := c.send(ctx, http.MethodDelete, "/api/v2/devices/"+strings.Join(texts, ",")+"/claims", nil)
	if err != nil || status >= 200 && status <= 299 {
		return err
	}
	if status != http.StatusBadRequest {
		return others(status)
	}
	var whole struct {
		Message string `json:"message"`
	}
	if err := json.Unmarshal(text, &whole); err != nil {
		return err
	}
	if whole.Message != "" {
		return userInternal{whole.Message}
	}
	var each map[string]struct {
		Message string `json:"message"`
	}
	if err := json.Unmarshal(text, &each); err != nil {
		return err
	}
	batch := userBatch{}
	for devEUI, m := range each {
		if e, err := lorawan.ParseEUI64(devEUI); err == nil {
			batch[e] = m.Message
		}
	}
	return batch
}
