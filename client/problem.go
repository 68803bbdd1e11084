package client

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"joinery"
)

// ProblemType is how the type of every problem begins; its code follows.
const ProblemType = "urn:joinery:problem:"

// Problem is a refusal (RFC 9457, application/problem+json). It never repeats
// what was sent.
type Problem struct {
	Type      string         `json:"type" example:"urn:joinery:problem:not_found" doc:"The problem's type, one for each code"`
	Title     string         `json:"title" example:"Not found" doc:"What the type means"`
	Status    int            `json:"status" example:"404" doc:"HTTP status"`
	Code      joinery.Code   `json:"code" example:"not_found" doc:"One word of a closed set, for programs"`
	Detail    string         `json:"detail,omitzero" doc:"What is wrong in this case, and what to do"`
	Errors    []ProblemField `json:"errors,omitzero" nullable:"false" doc:"Which members are wrong"`
	RequestID string         `json:"requestId,omitzero" doc:"Finds the request in the server's log"`
}

// ProblemField names one member of a request that is wrong.
type ProblemField struct {
	Location string `json:"location,omitzero" example:"body.netIDs[0]" doc:"Where it stands"`
	Message  string `json:"message" example:"expected string to be 6 hexadecimal digits" doc:"What was expected"`
}

// Error implements error: what a person needs to read.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Title)
	if p.Detail != "" {
		b.WriteString(": " + p.Detail)
	}
	for _, f := range p.Errors {
		b.WriteString("; ")
		if f.Location != "" {
			b.WriteString(f.Location + ": ")
		}
		b.WriteString(f.Message)
	}
	return b.String()
}

// maxProblem bounds what is read of a refusal.
const maxProblem = 64 << 10

// readProblem makes a Problem of an answer that is no success, also where
// something between here and the server answered in another form.
func readProblem(res *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	if err != nil {
		return fmt.Errorf("read the server's refusal (HTTP %d): %w", res.StatusCode, err)
	}
	mediaType, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	p := new(Problem)
	if mediaType != "application/problem+json" || json.Unmarshal(body, p) != nil || p.Code == "" {
		return &Problem{
			Type: "about:blank", Title: http.StatusText(res.StatusCode), Status: res.StatusCode,
			Code:      joinery.CodeInternal,
			Detail:    fmt.Sprintf("HTTP %d, and not in the form that a Join Server of this kind uses: is this its address?", res.StatusCode),
			RequestID: res.Header.Get(RequestIDHeader),
		}
	}
	p.Status = res.StatusCode
	return p
}
