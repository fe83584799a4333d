package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// client speaks to a server. Its fields are flags.
type client struct {
	url, keyFile, realm, caFile string
	json                        bool

	keyNamed bool // keyFile was given on the command line
	renewed  bool // a fresh code was asked for already
}

// flags gives a command, and those below it, the flags of all client commands.
func (c *client) flags(cmd *cobra.Command) *cobra.Command {
	f := cmd.PersistentFlags()
	f.StringVar(&c.url, "url", "", "the server (default $WATCHWORD_URL or http://127.0.0.1:8080)")
	f.StringVar(&c.keyFile, "api-key-file", "", "file with the API key (default $WATCHWORD_API_KEY_FILE or ./var/admin.key)")
	f.StringVar(&c.realm, "realm", "", "the realm (default $WATCHWORD_REALM, or the key's own)")
	f.StringVar(&c.caFile, "ca-file", "", "PEM file of the authority that signed the server's certificate (default $WATCHWORD_CA_FILE)")
	f.BoolVar(&c.json, "json", false, "print the server's answer as JSON")
	cmd.PersistentPreRunE = func(*cobra.Command, []string) error {
		c.keyNamed = c.keyFile != ""
		orEnv(&c.url, "WATCHWORD_URL", "http://127.0.0.1:8080")
		orEnv(&c.keyFile, "WATCHWORD_API_KEY_FILE", "./var/admin.key")
		orEnv(&c.realm, "WATCHWORD_REALM", "")
		orEnv(&c.caFile, "WATCHWORD_CA_FILE", "")
		return nil
	}
	return cmd
}

func orEnv(s *string, name, or string) {
	if *s == "" {
		*s = os.Getenv(name)
	}
	if *s == "" {
		*s = or
	}
}

// call is one request.
type call struct {
	what   string // is to be done, for errors
	method string
	path   string // escaped, see pathTo
	query  url.Values
	body   any       // sent as JSON; or
	stream io.Reader // sent as it comes, with
	length int64     // of stream, -1 if it is not known
	kind   string    // its content type
	slow   bool      // takes as long as it takes

	keyless bool                                // is sent without a key
	shown   func(io.Reader) (io.Reader, func()) // of an answer that is saved: how far it is; nil: not shown
}

// pathTo joins segments, of which others may have written some.
func pathTo(segments ...string) string {
	var b strings.Builder
	b.WriteString("/v1")
	for i, s := range segments {
		b.WriteByte('/')
		if i > 0 && s == "export" { // a user of this name, not /v1/users/export
			b.WriteString("%65xport")
			continue
		}
		b.WriteString(url.PathEscape(s))
	}
	return b.String()
}

// problem is RFC 9457's, as the server answers it.
type problem struct {
	Type   string          `json:"type"`
	Title  string          `json:"title"`
	Status int             `json:"status"`
	Detail string          `json:"detail"`
	Say    *string         `json:"say"` // what to tell whoever called
	Report json.RawMessage `json:"-"`   // all of it, where it has the members of an import's report too
}

// refusal is an error that the server answered.
type refusal struct {
	failure
	problem problem
}

func (r *refusal) Unwrap() error { return &r.failure }

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 20

// do sends a request and answers the body of a good answer.
func (c *client) do(ctx context.Context, r call) ([]byte, error) {
	stream, err := c.open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	body, err := io.ReadAll(io.LimitReader(stream, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = errors.New("the answer is too long")
	}
	if err != nil {
		return nil, brokeOff(r, err)
	}
	return body, nil
}

func brokeOff(r call, err error) error {
	return &failure{What: r.what, Why: "the answer broke off: " + err.Error(), Do: "see what was done before trying again"}
}

// open sends a request and answers the body of a good answer as it comes, however
// long it is. The caller closes it.
func (c *client) open(ctx context.Context, r call) (io.ReadCloser, error) {
	request, err := c.request(ctx, r)
	if err != nil {
		return nil, err
	}
	transport, err := c.transport()
	if err != nil {
		return nil, &failure{What: r.what, Why: err.Error(), Do: "see --ca-file"}
	}
	h := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the key goes nowhere else
	}
	if !r.slow {
		h.Timeout = 45 * time.Second
	}
	answer, err := h.Do(request)
	if err != nil {
		return nil, c.unreachable(r, err)
	}
	if answer.StatusCode >= 200 && answer.StatusCode <= 299 {
		return answer.Body, nil
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, brokeOff(r, err)
	}
	err = c.refused(r, answer.StatusCode, body)
	if c.fresh(r, err) {
		if err := c.renew(ctx); err != nil {
			return nil, err
		}
		return c.open(ctx, r)
	}
	return nil, err
}

func (c *client) request(ctx context.Context, r call) (*http.Request, error) {
	base, err := url.Parse(c.url)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" || base.User != nil {
		return nil, &failure{What: r.what, Why: "the server's address is not a URL such as http://127.0.0.1:8080", Do: "set --url or WATCHWORD_URL"}
	}
	key, err := c.shown(&r)
	if err != nil {
		return nil, err
	}
	if base.Scheme == "http" && !loopbackHost(base.Hostname()) {
		hint("warning: %s is plain HTTP: the API key and what follows can be read on the way; use https", base.Redacted())
	}
	query := r.query
	if query == nil {
		query = url.Values{}
	}
	target := strings.TrimSuffix(base.String(), "/") + r.path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	body, kind := r.stream, r.kind
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, &failure{What: r.what, Why: err.Error()}
		}
		body, kind = bytes.NewReader(text), "application/json"
	}
	request, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, &failure{What: r.what, Why: err.Error()}
	}
	if r.stream != nil {
		request.ContentLength = r.length
		// A refusal is heard before the file is sent.
		request.Header.Set("Expect", "100-continue")
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	if !r.keyless {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	request.Header.Set("User-Agent", "watchword/"+versionName())
	return request, nil
}

// shown is what a request shows: the session of who signed in, or else the API key.
func (c *client) shown(r *call) (string, error) {
	if r.keyless {
		return "", nil
	}
	if h := c.held(); h != nil {
		return h.Session, nil
	}
	key, err := readLine(c.keyFile)
	if err != nil {
		return "", &failure{What: r.what, Why: "no API key: " + err.Error(), Do: "name the file with --api-key-file or WATCHWORD_API_KEY_FILE, or sign in with 'watchword login'; a server writes the first key to admin.key in its data directory"}
	}
	// Also what is copied with a line's end of Windows or a space is a key.
	if key = strings.TrimSpace(key); strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", &failure{What: r.what, Why: "what is in " + c.keyFile + " is no API key", Do: "name another file with --api-key-file or WATCHWORD_API_KEY_FILE"}
	}
	return key, nil
}

func loopbackHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *client) transport() (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ExpectContinueTimeout = 10 * time.Second
	t.WriteBufferSize = 64 << 10
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.caFile != "" {
		pem, err := os.ReadFile(c.caFile)
		if err != nil {
			return nil, fmt.Errorf("%s: %s", c.caFile, plainCause(err))
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", c.caFile)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return t, nil
}

// unreachable explains why there was no answer.
func (c *client) unreachable(r call, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the URL, which we name ourselves
	}
	f := &failure{What: r.what, Why: "no answer from " + c.url + ": " + err.Error()}
	var ours *failure
	switch {
	case errors.As(err, &ours): // the stream's own
		return ours
	case errors.Is(err, context.Canceled):
		f.Why = "interrupted"
	case errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err):
		f.Why, f.Do = "no answer from "+c.url+" in time", "see what its /readyz says"
	case errors.Is(err, syscall.ECONNREFUSED):
		f.Why = "no server at " + c.url
		f.Do = "start one with 'watchword serve', or say where it is with --url or WATCHWORD_URL"
	case errors.As(err, new(x509.UnknownAuthorityError)):
		f.Do = "name the authority that signed its certificate with --ca-file or WATCHWORD_CA_FILE"
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		f.Do = "it speaks plain HTTP: use http:// in --url or WATCHWORD_URL"
	}
	return f
}

// remedies say what to do about an answer, where its detail does not.
var remedies = map[int]string{
	http.StatusUnauthorized:        "see that the file holds a key of this server: --api-key-file or WATCHWORD_API_KEY_FILE",
	http.StatusForbidden:           "use an API key with another scope or realm",
	http.StatusServiceUnavailable:  "try again, and see what /readyz says",
	http.StatusInternalServerError: "see the server's log",
}

// refused makes an error of an answer that is none of 2xx.
func (c *client) refused(r call, status int, body []byte) error {
	e := &refusal{failure: failure{What: r.what, Do: remedies[status]}}
	if json.Unmarshal(body, &e.problem) != nil || e.problem.Title == "" {
		e.Why = fmt.Sprintf("%s answered %d %s, which is not Watchword's", c.url, status, http.StatusText(status))
		e.Do = "see that --url or WATCHWORD_URL names a Watchword server"
		if status == http.StatusBadRequest && strings.Contains(string(body), "HTTPS server") {
			e.Do = "it speaks TLS: use https:// in --url or WATCHWORD_URL"
		}
		return e
	}
	if e.problem.Type == "urn:watchword:problem:bad-records" {
		e.problem.Report = body
	}
	e.Why = e.problem.Detail
	switch {
	case e.Why == "" || status == http.StatusUnauthorized:
		e.Why = strings.ToLower(e.problem.Title[:1]) + e.problem.Title[1:]
	case strings.Contains(e.Why, "; "):
		e.Do = "" // it says so itself
	}
	switch {
	case status == http.StatusUnauthorized && !r.keyless && c.held() != nil:
		e.Why, e.Do = "the session in "+c.sessionFile()+" has ended, or is not good from here", "sign in again: watchword login, or remove it: watchword logout"
	case status == http.StatusUnauthorized:
		e.Why = "the server does not know the API key in " + c.keyFile
	case e.problem.Type == "urn:watchword:problem:mfa-required":
		e.Why, e.Do = "this takes a code of the last five minutes", "sign in again, or run it at a terminal, where you are asked for one"
	}
	return e
}

// query is the realm, if there is one, and what else is asked for.
func (c *client) query(pairs ...string) url.Values {
	q := url.Values{}
	if c.realm != "" {
		q.Set("realm", c.realm)
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

// get reads into an answer, and prints it as it is with --json.
func get[T any](cmd *cobra.Command, c *client, r call) (answer T, printed bool, err error) {
	if r.method == "" {
		r.method = http.MethodGet
	}
	body, err := c.do(cmd.Context(), r)
	if err != nil {
		return answer, false, err
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return answer, false, &failure{What: r.what, Why: "the answer cannot be read", Do: "see that --url names a Watchword server of this version"}
	}
	if c.json {
		return answer, true, printJSON(cmd.OutOrStdout(), body)
	}
	return answer, false, nil
}

func printJSON(w io.Writer, body []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(body), "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

// page is a page of any list.
type page struct {
	Items []json.RawMessage `json:"items"`
	Next  string            `json:"next"`
}

const pageSize = 500

// list reads pages of a list until there are limit items, or all where it is
// zero. It prints them as JSON with --json, and says on standard error where
// there is more.
func list[T any](cmd *cobra.Command, c *client, r call, limit int) (items []T, printed bool, err error) {
	if limit < 0 {
		return nil, false, &failure{What: r.what, Why: "--limit is negative", Do: "0 lists all"}
	}
	var all page
	all.Items = []json.RawMessage{}
	for {
		size := pageSize
		if limit > 0 {
			size = min(size, limit-len(all.Items))
		}
		r.query.Set("limit", strconv.Itoa(size))
		body, err := c.do(cmd.Context(), withMethod(r))
		if err != nil {
			return nil, false, err
		}
		var p page
		if err := json.Unmarshal(body, &p); err != nil {
			return nil, false, &failure{What: r.what, Why: "the answer cannot be read", Do: "see that --url names a Watchword server of this version"}
		}
		all.Items, all.Next = append(all.Items, p.Items...), p.Next
		// A page may be short, or empty, although there is more.
		if p.Next == "" || limit > 0 && len(all.Items) >= limit {
			break
		}
		r.query.Set("cursor", p.Next)
	}
	defer func() {
		if err == nil && all.Next != "" {
			hint("there is more than these %d; --limit 0 lists all", len(all.Items))
		}
	}()
	if c.json {
		body, err := json.Marshal(map[string]any{"items": all.Items})
		if err != nil {
			return nil, false, err
		}
		return nil, true, printJSON(cmd.OutOrStdout(), body)
	}
	items = make([]T, len(all.Items))
	for i, item := range all.Items {
		if err := json.Unmarshal(item, &items[i]); err != nil {
			return nil, false, &failure{What: r.what, Why: "the answer cannot be read", Do: "see that --url names a Watchword server of this version"}
		}
	}
	return items, false, nil
}

func withMethod(r call) call {
	r.method = http.MethodGet
	return r
}

// printList prints a table, or that there is nothing.
func printList(cmd *cobra.Command, t *table, nothing string) error {
	if len(t.rows) == 0 {
		hint("%s", nothing)
		return nil
	}
	return t.print(cmd.OutOrStdout())
}
