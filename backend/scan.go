package backend

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxMessageLen is how long a message may be, in bytes. Honest ones take less
// than a thousand.
const MaxMessageLen = 32 << 10

// maxDepth is how deep a message may nest. Ours nest two levels; the rest is
// for VSExtension, into which vendors put what they like.
const maxDepth = 16

// member is a member of a message that this package knows.
type member uint8

const (
	memberUnknown member = iota
	memberProtocolVersion
	memberTransactionID
	memberMessageType
	memberSenderID
	memberReceiverID
	memberSenderNSID
	memberReceiverNSID
	memberSenderToken
	memberReceiverToken
	memberVSExtension
	memberMACVersion
	memberPHYPayload
	memberDevEUI
	memberDevAddr
	memberDLSettings
	memberRxDelay
	memberCFList
	memberSessionKeyID
	memberResult
	memberLifetime
	memberNwkSKey
	memberSNwkSIntKey
	memberFNwkSIntKey
	memberNwkSEncKey
	memberAppSKey
	memberHNetID
	memberHNSID
	memberResultCode
	memberDescription
	memberKEKLabel
	memberAESKey
	memberCount
)

var memberText = [memberCount]string{
	memberProtocolVersion: "ProtocolVersion", memberTransactionID: "TransactionID", memberMessageType: "MessageType",
	memberSenderID: "SenderID", memberReceiverID: "ReceiverID", memberSenderNSID: "SenderNSID",
	memberReceiverNSID: "ReceiverNSID", memberSenderToken: "SenderToken", memberReceiverToken: "ReceiverToken",
	memberVSExtension: "VSExtension", memberMACVersion: "MACVersion", memberPHYPayload: "PHYPayload",
	memberDevEUI: "DevEUI", memberDevAddr: "DevAddr", memberDLSettings: "DLSettings", memberRxDelay: "RxDelay",
	memberCFList: "CFList", memberSessionKeyID: "SessionKeyID", memberResult: "Result", memberLifetime: "Lifetime",
	memberNwkSKey: "NwkSKey", memberSNwkSIntKey: "SNwkSIntKey", memberFNwkSIntKey: "FNwkSIntKey",
	memberNwkSEncKey: "NwkSEncKey", memberAppSKey: "AppSKey", memberHNetID: "HNetID", memberHNSID: "HNSID",
	memberResultCode: "ResultCode", memberDescription: "Description", memberKEKLabel: "KEKLabel", memberAESKey: "AESKey",
}

// memberOf finds a member by its name without quotes. Names are compared as
// they are: JSON is case-sensitive.
func memberOf(name []byte) member {
	switch string(name) {
	case "ProtocolVersion":
		return memberProtocolVersion
	case "TransactionID":
		return memberTransactionID
	case "MessageType":
		return memberMessageType
	case "SenderID":
		return memberSenderID
	case "ReceiverID":
		return memberReceiverID
	case "SenderNSID":
		return memberSenderNSID
	case "ReceiverNSID":
		return memberReceiverNSID
	case "SenderToken":
		return memberSenderToken
	case "ReceiverToken":
		return memberReceiverToken
	case "VSExtension":
		return memberVSExtension
	case "MACVersion":
		return memberMACVersion
	case "PHYPayload":
		return memberPHYPayload
	case "DevEUI":
		return memberDevEUI
	case "DevAddr":
		return memberDevAddr
	case "DLSettings":
		return memberDLSettings
	case "RxDelay":
		return memberRxDelay
	case "CFList":
		return memberCFList
	case "SessionKeyID":
		return memberSessionKeyID
	}
	return answerMemberOf(name)
}

// answerMemberOf finds the members that only answers have.
func answerMemberOf(name []byte) member {
	for m := memberResult; m < memberCount; m++ {
		if memberText[m] == string(name) {
			return m
		}
	}
	return memberUnknown
}

// object is one JSON object, as text: a view of each member that this package
// knows, nil where it is absent or null.
type object [memberCount][]byte

// scanner splits one JSON object into its members, then goes back to the pool.
// It allocates nothing.
type scanner struct {
	decoder jsontext.Decoder
	buffer  bytes.Buffer
	name    []byte
	members object
}

var scanners sync.Pool

func openScanner() *scanner {
	if s, ok := scanners.Get().(*scanner); ok {
		return s
	}
	return new(scanner)
}

// close gives s back and keeps nothing of the message.
func (s *scanner) close() {
	s.buffer = bytes.Buffer{}
	s.members = object{}
	scanners.Put(s)
}

var errDepth = errors.New("nested too deep")

// scan splits body, which must be one JSON object and nothing else. The views
// are valid as long as body is; no member stands twice, also not one that this
// package does not know (RFC 8259 §4 leaves open which would count).
func (s *scanner) scan(body []byte) error {
	s.buffer = *bytes.NewBuffer(body)
	d := &s.decoder
	d.Reset(&s.buffer)
	if d.PeekKind() != '{' {
		return errors.New("not an object")
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != '}' {
		if err := s.scanMember(body); err != nil {
			return err
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

func (s *scanner) scanMember(body []byte) error {
	quoted, err := s.decoder.ReadValue()
	if err != nil {
		return err
	}
	name := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		if s.name, err = jsontext.AppendUnquote(s.name[:0], quoted); err != nil {
			return err
		}
		name = s.name
	}
	m := memberOf(name)
	switch kind := s.decoder.PeekKind(); kind {
	case 'n':
		return s.decoder.SkipValue()
	case '{', '[':
		return s.scanNested(body, m)
	default:
		value, err := s.decoder.ReadValue()
		if err != nil {
			return err
		}
		s.keep(body, m, len(value))
		return nil
	}
}

// scanNested walks over an object or array token by token, so that depth is
// bounded before anything recurses.
func (s *scanner) scanNested(body []byte, m member) error {
	if _, err := s.decoder.ReadToken(); err != nil {
		return err
	}
	start := s.decoder.InputOffset() - 1
	outer := s.decoder.StackDepth() - 1
	for s.decoder.StackDepth() > outer {
		if s.decoder.StackDepth() > maxDepth {
			return errDepth
		}
		if _, err := s.decoder.ReadToken(); err != nil {
			return err
		}
	}
	s.keep(body, m, int(s.decoder.InputOffset()-start))
	return nil
}

// keep remembers the value of length n that was just read.
func (s *scanner) keep(body []byte, m member, n int) {
	if m != memberUnknown {
		end := s.decoder.InputOffset()
		s.members[m] = body[end-int64(n) : end]
	}
}
