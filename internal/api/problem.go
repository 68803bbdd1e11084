package api

import (
	"net/http"
	"strconv"

	"joinery"
	"joinery/client"

	"github.com/danielgtaylor/huma/v2"
)

// kind is how one code looks over HTTP.
type kind struct {
	status int
	title  string
}

// kinds maps every joinery.Code to HTTP. The problem type is the code behind
// client.ProblemType.
func kinds() map[joinery.Code]kind {
	return map[joinery.Code]kind{
		joinery.CodeInternal:        {http.StatusInternalServerError, "Internal error"},
		joinery.CodeUnavailable:     {http.StatusServiceUnavailable, "Not available now"},
		joinery.CodeInvalid:         {http.StatusUnprocessableEntity, "Invalid request"},
		joinery.CodeTooLarge:        {http.StatusRequestEntityTooLarge, "Too large"},
		joinery.CodeUnauthenticated: {http.StatusUnauthorized, "Not authenticated"},
		joinery.CodeForbidden:       {http.StatusForbidden, "Not allowed"},
		joinery.CodeNotFound:        {http.StatusNotFound, "Not found"},
		joinery.CodeConflict:        {http.StatusConflict, "Conflict"},
		joinery.CodePrecondition:    {http.StatusPreconditionFailed, "Changed meanwhile"},
		joinery.CodeRateLimited:     {http.StatusTooManyRequests, "Too many tries"},
		joinery.CodeProtocol:        {http.StatusBadRequest, "Protocol version not spoken"},
		joinery.CodeUnknownSender:   {http.StatusForbidden, "Unknown sender"},
		joinery.CodeUnknownReceiver: {http.StatusNotFound, "JoinEUI not served"},
		joinery.CodeUnknownDevice:   {http.StatusNotFound, "Unknown device"},
		joinery.CodeSuspended:       {http.StatusConflict, "Suspended"},
		joinery.CodeLapsed:          {http.StatusConflict, "Service lapsed"},
		joinery.CodeAttestation:     {http.StatusConflict, "Not attested"},
		joinery.CodeMIC:             {http.StatusUnprocessableEntity, "MIC does not match"},
		joinery.CodeReplay:          {http.StatusConflict, "Nonce already used"},
		joinery.CodeExhausted:       {http.StatusConflict, "Counter at its end"},
		joinery.CodeJoinRefused:     {http.StatusConflict, "Join refused"},
		joinery.CodeNoRoaming:       {http.StatusForbidden, "No roaming agreement"},
		joinery.CodeKEKMissing:      {http.StatusUnprocessableEntity, "KEK missing"},
	}
}

// problem is a client.Problem that huma sends as an answer.
type problem struct {
	client.Problem
	after int // seconds until asking again may help; 0: not known
}

// GetHeaders implements huma.HeadersError.
func (p *problem) GetHeaders() http.Header {
	if p.after == 0 {
		return nil
	}
	return http.Header{"Retry-After": {strconv.Itoa(p.after)}}
}

// GetStatus implements huma.StatusError.
func (p *problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *problem) ContentType(string) string { return "application/problem+json" }

// newProblem makes the answer to a refusal with code; detail is for people
// outside.
func (s *Server) newProblem(code joinery.Code, detail, requestID string) *problem {
	k, ok := s.kinds[code]
	if !ok {
		code, k, detail = joinery.CodeInternal, s.kinds[joinery.CodeInternal], ""
	}
	return &problem{Problem: client.Problem{
		Type: client.ProblemType + string(code), Title: k.title, Status: k.status,
		Code: code, Detail: detail, RequestID: requestID,
	}}
}

// problemOf makes the answer to an error of a service.
func (s *Server) problemOf(err error, requestID string) *problem {
	p := s.newProblem(joinery.CodeOf(err), joinery.MessageOf(err), requestID)
	p.after = retryAfter(p.Status, err)
	return p
}

// statusProblem makes the answer to what HTTP itself refuses with status.
func (s *Server) statusProblem(status int, detail, requestID string) *problem {
	code := joinery.CodeInvalid
	switch status {
	case http.StatusUnauthorized:
		code = joinery.CodeUnauthenticated
	case http.StatusNotFound:
		code = joinery.CodeNotFound
	case http.StatusRequestEntityTooLarge:
		code = joinery.CodeTooLarge
	}
	if status >= http.StatusInternalServerError {
		code, detail = joinery.CodeInternal, "internal error"
	}
	p := s.newProblem(code, detail, requestID)
	p.Status = status
	return p
}

// replaceError is a huma.Transformer: it turns the errors that huma makes, which
// repeat the values that were sent, into problems, which do not.
func (s *Server) replaceError(ctx huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := s.statusProblem(e.Status, statusDetail(e.Status), requestID(ctx.Context()))
	if e.Status < http.StatusInternalServerError {
		p.Errors = s.fields(ctx.Operation(), e.Errors)
	}
	return p, nil
}

// statusDetail says in our own words what huma refused.
func statusDetail(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "the body could not be read as JSON"
	case http.StatusRequestTimeout:
		return "the body did not come in time"
	case http.StatusRequestEntityTooLarge:
		return "the body is larger than this route takes"
	case http.StatusUnsupportedMediaType:
		return "send the body as application/json"
	case http.StatusUnprocessableEntity:
		return "the request is not what this route takes; 'errors' names each member that is wrong"
	}
	return ""
}
