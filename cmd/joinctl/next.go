package main

import (
	"crypto/x509"
	"errors"
	"os"
	"strings"

	"joinery"
	"joinery/client"
)

// nextSteps says for each code of a refusal what to do now. It is whole: a test
// compares it with the closed set of codes.
var nextSteps = map[joinery.Code]string{
	joinery.CodeInternal:        "this is a defect of the server or a part of it that failed; its operator finds the cause in the server's log",
	joinery.CodeUnavailable:     "try again in a moment; 'joinctl status' says whether the server is ready",
	joinery.CodeInvalid:         "mend what the message names and give the command again; its --help shows how values are written",
	joinery.CodeTooLarge:        "give less at once: a smaller file, or fewer items",
	joinery.CodeUnauthenticated: "sign in with 'joinctl login', or name the file of an API key with --api-key-file; on the server's own machine 'joinctl key make NAME' makes one",
	joinery.CodeForbidden:       "'joinctl whoami' says who the server takes you for; ask its operator, or give --org if you may act for several organisations",
	joinery.CodeNotFound:        "look it up with the command's 'list'; what belongs to others is not shown, and 'joinctl whoami' says for whom you look",
	joinery.CodeConflict:        "look at what is there now with 'show' or 'list', then decide",
	joinery.CodePrecondition:    "somebody changed it meanwhile: look at it again, and give the command again if it still holds",
	joinery.CodeRateLimited:     "wait a minute before the next try",
	joinery.CodeProtocol:        "the other side must speak Backend Interfaces 1.0 or 1.1: set that in the Network Server",
	joinery.CodeUnknownSender:   "'joinctl peer list' says which NetIDs, NSIDs and AS-IDs belong to which peer",
	joinery.CodeUnknownReceiver: "'joinctl range list' says which JoinEUIs this server answers for",
	joinery.CodeUnknownDevice:   "'joinctl device list' says which devices are here, 'joinctl explain DEVICE' why one does not join",
	joinery.CodeSuspended:       "'joinctl device resume DEVICE' ends a suspension; 'joinctl peer change PEER --suspended=false' that of a peer",
	joinery.CodeLapsed:          "'joinctl service show DEVICE' says since when, 'joinctl service extend DEVICE' extends it",
	joinery.CodeAttestation:     "'joinctl attest show DEVICE' says what it has shown and what its owner wants",
	joinery.CodeMIC:             "the device has another root key than this server: 'joinctl explain DEVICE' says more",
	joinery.CodeReplay:          "'joinctl explain DEVICE' says which counter was used again, and what to do where the device lost it",
	joinery.CodeExhausted:       "a counter of the device is used up: it needs new keys",
	joinery.CodeJoinRefused:     "'joinctl explain DEVICE' says why",
	joinery.CodeNoRoaming:       "'joinctl roaming set NETID' lets a network ask for the home of devices",
	joinery.CodeKEKMissing:      "'joinctl kek add PEER' gives the peer a KEK",
}

// hintFor says what to do about an error, where that is known.
func hintFor(err error) string {
	if _, ok := errors.AsType[usageError](err); ok {
		return "" // it says so itself
	}
	if p, ok := errors.AsType[*client.Problem](err); ok {
		return nextAfter(p)
	}
	if errors.Is(err, client.ErrUnreachable) {
		return nextWithoutAnswer(err)
	}
	return ""
}

// nextAfter says what to do about a refusal.
func nextAfter(p *client.Problem) string {
	switch {
	case p.Code == joinery.CodeInvalid && strings.Contains(p.Detail, "for which organisation"):
		return "name it with --org; 'joinctl org list' lists them, 'joinctl org add' adds one"
	case p.Code == joinery.CodeInternal && p.RequestID != "":
		return "the server's log has the cause under request " + clean(p.RequestID)
	}
	return nextSteps[p.Code]
}

// nextWithoutAnswer says what to do where nobody answered.
func nextWithoutAnswer(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "the server's certificate is under a CA that is not trusted here: give its CA with --server-ca"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "connect by a name that is in the server's certificate: --server https://NAME"
	}
	if _, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return "the server's certificate is not valid now; its operator has to renew it, or is the clock of this machine wrong?"
	}
	switch {
	case errors.Is(err, os.ErrPermission):
		return "the operator socket is for root and the server's own user: use sudo, or sign in with 'joinctl login --server URL'"
	case errors.Is(err, os.ErrNotExist):
		return "no socket is there: is the server running? name its socket with --socket or JOINCTL_SOCKET, or sign in to a server elsewhere with 'joinctl login --server URL'"
	}
	return "is the server running, and is that its address? see --server, --socket and 'joinctl profile list'"
}
