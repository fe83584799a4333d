package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// Errors that only HTTP knows.
var (
	errTooLarge  = errors.New("body too large")
	errMediaType = errors.New("unsupported content type")
	errRoute     = errors.New("no such resource")
	errMethod    = errors.New("no such method")
	errRecords   = errors.New("the file has bad records")
	errGone      = errors.New("the client went away")
)

// kind is how one kind of error looks to a client.
type kind struct {
	err    error
	status int
	name   string // after urn:watchword:problem:
	title  string
	detail string // said instead of the error's own words, where those are for the log
	logged bool
}

// kinds are looked through in order. This is the one place where errors become
// status codes.
var kinds = []kind{
	{err: tokens.ErrInvalid, status: http.StatusBadRequest, name: "invalid", title: "Invalid request"},
	{err: tokens.ErrUnknownKey, status: http.StatusUnauthorized, name: "unknown-key", title: "No or unknown API key",
		detail: "send a valid API key as 'Authorization: Bearer KEY', or sign in again"},
	{err: tokens.ErrMFARequired, status: http.StatusForbidden, name: "mfa-required", title: "A fresh proof is needed",
		detail: "this takes a token that was proved in the last five minutes: renew the session with a fresh code (POST /v1/session/renew, or sign in with the FIDO key again), and ask once more"},
	{err: tokens.ErrForbidden, status: http.StatusForbidden, name: "forbidden", title: "Not allowed"},
	{err: tokens.ErrNotFound, status: http.StatusNotFound, name: "not-found", title: "Not found"},
	{err: tokens.ErrExists, status: http.StatusConflict, name: "exists", title: "Exists already"},
	{err: tokens.ErrState, status: http.StatusConflict, name: "state", title: "Not possible in this state"},
	{err: tokens.ErrTampered, status: http.StatusConflict, name: "tampered", title: "Altered outside Watchword", logged: true,
		detail: "the database row was altered outside Watchword and is refused; see the audit"},
	{err: tokens.ErrWrongCode, status: http.StatusUnprocessableEntity, name: "wrong-code", title: "The codes do not match"},
	{err: tokens.ErrOverloaded, status: http.StatusServiceUnavailable, name: "overloaded", title: "Too much at once", logged: true,
		detail: "there is too much to do at once; try again"},
	{err: tokens.ErrUnavailable, status: http.StatusServiceUnavailable, name: "unavailable", title: "Cannot answer now", logged: true,
		detail: "the HSM or the database cannot answer now; try again"},
	{err: errTooLarge, status: http.StatusRequestEntityTooLarge, name: "too-large", title: "Body too large"},
	{err: errMediaType, status: http.StatusUnsupportedMediaType, name: "media-type", title: "Unsupported content type"},
	{err: errRecords, status: http.StatusUnprocessableEntity, name: "bad-records", title: "The file has bad records"},
	{err: errRoute, status: http.StatusNotFound, name: "not-found", title: "Not found"},
	{err: errMethod, status: http.StatusMethodNotAllowed, name: "method", title: "Method not allowed"},
	{err: errGone, status: 499, name: "gone", title: "The client went away"},
	{err: context.DeadlineExceeded, status: http.StatusServiceUnavailable, name: "unavailable", title: "Cannot answer now", logged: true,
		detail: "no answer in time; try again"},
}

// internal is what every other error is.
var internal = kind{status: http.StatusInternalServerError, name: "internal", title: "Internal error", logged: true}

// kindOf finds an error's kind.
func kindOf(err error) kind {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return k
		}
	}
	return internal
}

// words are what a client is told of an error: its own words without the
// kind's, which the title says.
func (k *kind) words(err error) string {
	if k.detail != "" || k.err == nil {
		return k.detail
	}
	return strings.Replace(err.Error(), k.err.Error()+": ", "", 1)
}

// retryAfter is what a client that found us busy is asked to wait, in seconds.
const retryAfter = "1"

// fail answers a request with an error. It is called once for each that failed. It
// says whether it could: not when an answer was under way, which must not end as if
// it were whole.
func (s *Server) fail(c echo.Context, err error) (answered bool) {
	err = fromEcho(err)
	if c.Request().Context().Err() != nil && errors.Is(err, context.Canceled) {
		err = errGone
	}
	k := kindOf(err)
	instance := newInstance()
	if k.logged && s.quota.take(k.name) {
		s.log.Error("a request failed", "instance", instance, "method", c.Request().Method, "route", c.Path(), "status", k.status, "error", err)
	}
	if c.Response().Committed {
		return false
	}
	switch k.status {
	case http.StatusUnauthorized:
		c.Response().Header().Set("WWW-Authenticate", challenge(err))
	case http.StatusServiceUnavailable:
		c.Response().Header().Set("Retry-After", retryAfter)
	}
	p := Problem{Type: "urn:watchword:problem:" + k.name, Title: k.title, Status: k.status, Instance: instance}
	if d := k.words(err); d != "" {
		p.Detail = &d
	}
	if act := new(saying); errors.As(err, &act) {
		p.Say = &act.say
	}
	var body any = p
	var more interface{ problem(Problem) any }
	if errors.As(err, &more) {
		body = more.problem(p)
	}
	if err := writeJSON(c, k.status, "application/problem+json", body); err != nil {
		s.log.Debug("an error could not be sent", "instance", instance, "error", err)
	}
	return true
}

// fromEcho brings what the router and the generated code answer to our kinds.
func fromEcho(err error) error {
	var h *echo.HTTPError
	if !errors.As(err, &h) {
		return err
	}
	switch h.Code {
	case http.StatusNotFound:
		return fmt.Errorf("%w: see /openapi.yaml for what there is", errRoute)
	case http.StatusMethodNotAllowed:
		return fmt.Errorf("%w here: see /openapi.yaml for what there is", errMethod)
	case http.StatusBadRequest:
		return fmt.Errorf("%w: %v", tokens.ErrInvalid, h.Message)
	}
	return err
}

// challenge is RFC 6750, section 3: no error code for a request without a key.
func challenge(err error) string {
	if errors.Is(err, errNoKey) {
		return `Bearer realm="watchword"`
	}
	return `Bearer realm="watchword", error="invalid_token"`
}

// newInstance names an occurrence, for the client and for the log.
func newInstance() string {
	var b [8]byte
	rand.Read(b[:])
	return "urn:watchword:request:" + hex.EncodeToString(b[:])
}

// panicked makes an error of a panic. What was thrown may hold anything, so
// only its type and, of the runtime's own, its words are told.
func panicked(v any, stack []byte) error {
	if e, ok := v.(interface{ RuntimeError() }); ok {
		return fmt.Errorf("panic: %v\n%s", e, stack)
	}
	return fmt.Errorf("panic: a %T\n%s", v, stack)
}

// quota keeps a flood of equal failures out of the log: one of a kind a second.
type quota struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (q *quota) take(name string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.last == nil {
		q.last = make(map[string]time.Time)
	}
	now := time.Now()
	if now.Sub(q.last[name]) < time.Second {
		return false
	}
	q.last[name] = now
	return true
}
