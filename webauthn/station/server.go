package station

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Server is Watchword, to whom the station speaks by its API with a key of scope
// station.
type Server struct {
	URL   string // such as https://login.example.org
	Key   string // the API key
	Realm string // empty: the key's, or the default one
	HTTP  *http.Client
}

// Problem is what the server refused (RFC 9457).
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`

	foreign bool // it is not of Watchword, but of something that is in its place
}

func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Title
}

// decided says whether an error is the server's last word: what is asked again gets the
// same answer. Otherwise nobody knows whether it was done.
func decided(err error) bool {
	var p *Problem
	return errors.As(err, &p) && p.Status >= 400 && p.Status < 500 && p.Status != http.StatusTooManyRequests && p.Status != http.StatusRequestTimeout
}

// maxReply bounds what is read of an answer.
const maxReply = 1 << 20

// call asks the server; in and out may be nil.
func (s *Server) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(s.URL, "/")+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer "+s.Key)
	answer, err := s.HTTP.Do(r)
	if err != nil {
		return fmt.Errorf("the server at %s cannot be reached: %w", s.URL, cause(err))
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxReply))
	if err != nil {
		return fmt.Errorf("the server's answer broke off: %w", cause(err))
	}
	if answer.StatusCode/100 != 2 {
		p := &Problem{}
		if json.Unmarshal(text, p) != nil || p.Status != answer.StatusCode {
			p = &Problem{Title: "the server at " + s.URL + " answers " + answer.Status, foreign: true}
		}
		p.Status = answer.StatusCode
		return p
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("the server's answer is not understood: is there a Watchword at %s?", s.URL)
	}
	return nil
}

// cause is what went wrong with a request, without its address, which is named anyway.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// Model is a model of keys as the FIDO metadata has it.
type Model struct {
	AAGUID        string `json:"aaguid"`
	Name          string `json:"name"`
	Certification string `json:"certification"`
}

// Verdict is whether keys of a model may be enrolled.
type Verdict struct {
	Allowed bool     `json:"allowed"`
	Reasons []string `json:"reasons"` // why not
	Model   *Model   `json:"model"`   // nil: no metadata knows it
}

// Allowed asks what is known of a model, and whether it may be enrolled.
func (s *Server) Allowed(ctx context.Context, aaguid string) (Verdict, error) {
	var v Verdict
	err := s.call(ctx, http.MethodGet, "/v1/fido/allowed?"+s.query("aaguid", aaguid), nil, &v)
	return v, err
}

func (s *Server) query(pairs ...string) string {
	q := url.Values{}
	if s.Realm != "" {
		q.Set("realm", s.Realm)
	}
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return q.Encode()
}

// registration is what the server is asked to begin.
type registration struct {
	User         string `json:"user,omitempty"`
	Stock        bool   `json:"stock,omitempty"`
	Realm        string `json:"realm,omitempty"`
	RPID         string `json:"rp_id,omitempty"`
	Discoverable bool   `json:"discoverable"`
	Verification string `json:"user_verification,omitempty"`
	Attestation  string `json:"attestation,omitempty"`
}

// ceremony is what it answers.
type ceremony struct {
	Options json.RawMessage `json:"options"`
	Session string          `json:"session"`
	Expires time.Time       `json:"expires"`
}

func (s *Server) begin(ctx context.Context, r registration) (ceremony, error) {
	var c ceremony
	r.Realm = s.Realm
	err := s.call(ctx, http.MethodPost, "/v1/webauthn/register/begin", r, &c)
	return c, err
}

// Token is an enrolled key as the server has it.
type Token struct {
	Serial      string `json:"serial"`
	Realm       string `json:"realm"`
	User        string `json:"user"`
	State       string `json:"state"`
	Model       string `json:"model"`
	AAGUID      string `json:"aaguid"`
	Attestation string `json:"attestation"`
}

// finish is what the server is sent of a credential that was made.
type finish struct {
	Session  string          `json:"session"`
	Response json.RawMessage `json:"response"`
}

func (s *Server) finish(ctx context.Context, f finish) (Token, error) {
	var t Token
	err := s.call(ctx, http.MethodPost, "/v1/webauthn/register/finish", f, &t)
	if err == nil && t.Serial == "" {
		err = errors.New("the server's answer names no serial")
	}
	return t, err
}

// origin is one of those that the server takes answers of a relying party from.
func (s *Server) origin(ctx context.Context, rpID string) (string, error) {
	var list struct {
		Origins []string `json:"origins"`
	}
	if err := s.call(ctx, http.MethodGet, "/.well-known/webauthn?"+url.Values{"rp_id": {rpID}}.Encode(), nil, &list); err != nil {
		return "", err
	}
	if len(list.Origins) == 0 {
		return "", fmt.Errorf("the server names no origin of relying party %s", rpID)
	}
	return list.Origins[0], nil
}
