package backend

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzParseRequest: whatever the body, the result is a request that can be
// written and read again, or an error that can be answered as its kind says.
func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{
		ttsJoinReq, ttsJoinReq11, ttsAppSKeyReq11, chirpstackJoinReq, chirpstackHomeNSReq, brocaarJoinReq, brocaarRejoinReq,
		joinAns1_0, ``, `{}`, `[`, `{"a":`, `{"MessageType":"JoinReq","MessageType":"JoinReq"}`, `{"VSExtension":[[[[[[[[[[[[[[[[[[[[`,
		`{"MessageType":"HomeNSReq","SenderID":"000013","ReceiverID":"70B3D57ED0000000","ProtocolVersion":"9"}`,
		`{"\u004dessageType":"HomeNSReq","SenderID":"\u0030x000013","ReceiverID":"70B3D57ED0000000","TransactionID":4294967295}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var r Request
		err := r.Parse(body)
		if err == nil {
			checkRequest(t, &r, body)
			return
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Kind < Unanswerable || e.Kind > Malformed || e.Want == "" {
			t.Fatalf("error is %#v", err)
		}
		if e.Kind != Unanswerable {
			checkAnswerable(t, &r)
		}
	})
}

func checkRequest(t *testing.T, r *Request, body []byte) {
	t.Helper()
	// A second opinion on what JSON is.
	if !json.Valid(body) {
		t.Fatalf("%q is no JSON", body)
	}
	var again Request
	if err := again.Parse(r.Append(nil, Style{})); err != nil {
		t.Fatalf("%s, written again, %s: %v", body, r.Append(nil, Style{}), err)
	}
	if diff := cmp.Diff(*r, again, compareCFLists); diff != "" {
		t.Fatalf("%s, written again: -want +got\n%s", body, diff)
	}
}

func FuzzParseAnswer(f *testing.F) {
	for _, s := range []string{joinAns1_0, joinAns1_1, joinAnsRefused, appSKeyAns, appSKeyAnsRefused, homeNSAns, ttsJoinReq, `{}`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var a Answer
		if err := a.Parse(body); err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Want == "" {
				t.Fatalf("error is %#v", err)
			}
			return
		}
		var again Answer
		wire := a.Append(nil)
		if err := again.Parse(wire); err != nil {
			t.Fatalf("%s, written again, %s: %v", body, wire, err)
		}
		if !bytes.Equal(wire, again.Append(nil)) {
			t.Fatalf("%s, written twice: %s", wire, again.Append(nil))
		}
	})
}
