package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// errNoKey is a request without a key at all.
var errNoKey = fmt.Errorf("%w: there is no Authorization header", tokens.ErrUnknownKey)

// routeKey finds a route: its method, and its path as the router writes it.
type routeKey struct{ method, path string }

// route is what is the same for each request of an operation.
type route struct {
	query []string // names of the parameters that it takes
	key   bool     // an API key is needed, or a session
	open  bool     // not if a person signs in
	slow  bool     // it takes as long as it takes
	seeds bool     // its body holds seeds, or a PIN: nothing of it may stay

	series atomic.Pointer[routeSeries] // nil until there was a good answer
}

// queries are the parameters of the operations that have any, as generated.
var queries = map[routeKey]reflect.Type{
	{"POST", "/v1/verify"}:                    reflect.TypeFor[VerifyParams](),
	{"GET", "/v1/clients"}:                    reflect.TypeFor[ListClientsParams](),
	{"POST", "/v1/clients"}:                   reflect.TypeFor[AddClientParams](),
	{"PUT", "/v1/clients/:name"}:              reflect.TypeFor[PutClientParams](),
	{"PUT", "/v1/sinks/:name"}:                reflect.TypeFor[PutSinkParams](),
	{"POST", "/v1/session"}:                   reflect.TypeFor[SignInParams](),
	{"GET", "/v1/sessions"}:                   reflect.TypeFor[ListSessionsParams](),
	{"GET", "/v1/roles"}:                      reflect.TypeFor[ListRolesParams](),
	{"PUT", "/v1/roles/:role/users/:name"}:    reflect.TypeFor[GrantRoleParams](),
	{"DELETE", "/v1/roles/:role/users/:name"}: reflect.TypeFor[RevokeRoleParams](),
	{"GET", "/v1/keys"}:                       reflect.TypeFor[ListKeysParams](),
	{"POST", "/v1/keys"}:                      reflect.TypeFor[AddKeyParams](),
	{"GET", "/v1/users"}:                      reflect.TypeFor[ListUsersParams](),
	{"POST", "/v1/users"}:                     reflect.TypeFor[AddUserParams](),
	{"GET", "/v1/users/:name"}:                reflect.TypeFor[ShowUserParams](),
	{"POST", "/v1/users/:name/enable"}:        reflect.TypeFor[EnableUserParams](),
	{"POST", "/v1/users/:name/disable"}:       reflect.TypeFor[DisableUserParams](),
	{"POST", "/v1/users/:name/unlock"}:        reflect.TypeFor[UnlockUserParams](),
	{"PUT", "/v1/users/:name/pin"}:            reflect.TypeFor[SetPinParams](),
	{"DELETE", "/v1/users/:name/pin"}:         reflect.TypeFor[RemovePinParams](),
	{"GET", "/v1/users/:name/why"}:            reflect.TypeFor[WhyParams](),
	{"GET", "/v1/tokens"}:                     reflect.TypeFor[ListTokensParams](),
	{"GET", "/v1/tokens/:serial"}:             reflect.TypeFor[ShowTokenParams](),
	{"POST", "/v1/tokens/:serial/assign"}:     reflect.TypeFor[AssignTokenParams](),
	{"POST", "/v1/tokens/:serial/unassign"}:   reflect.TypeFor[UnassignTokenParams](),
	{"POST", "/v1/tokens/:serial/suspend"}:    reflect.TypeFor[SuspendTokenParams](),
	{"POST", "/v1/tokens/:serial/resume"}:     reflect.TypeFor[ResumeTokenParams](),
	{"POST", "/v1/tokens/:serial/lost"}:       reflect.TypeFor[LoseTokenParams](),
	{"POST", "/v1/tokens/:serial/revoke"}:     reflect.TypeFor[RevokeTokenParams](),
	{"POST", "/v1/tokens/:serial/resync"}:     reflect.TypeFor[ResyncTokenParams](),
	{"POST", "/v1/tokens/:serial/unlock"}:     reflect.TypeFor[UnlockOwnerParams](),
	{"GET", "/v1/imports"}:                    reflect.TypeFor[ListImportsParams](),
	{"POST", "/v1/imports"}:                   reflect.TypeFor[ImportSeedsParams](),
	{"GET", "/v1/audit"}:                      reflect.TypeFor[ListAuditParams](),
	{"GET", "/v1/audit/export"}:               reflect.TypeFor[ExportAuditParams](),
	{"POST", "/v1/webauthn/register/begin"}:   reflect.TypeFor[BeginRegistrationParams](),
	{"POST", "/v1/webauthn/login/begin"}:      reflect.TypeFor[BeginLoginParams](),
	{"GET", "/v1/users/:name/invitations"}:    reflect.TypeFor[ListInvitationsParams](),
	{"POST", "/v1/users/:name/invitations"}:   reflect.TypeFor[InviteParams](),
	{"GET", "/v1/users/:name/groups"}:         reflect.TypeFor[ShowGroupsParams](),
	{"PUT", "/v1/users/:name/groups"}:         reflect.TypeFor[SetGroupsParams](),
	{"POST", "/v1/users/:name/tokens"}:        reflect.TypeFor[NewTokenParams](),
	{"POST", "/v1/users/:name/recovery"}:      reflect.TypeFor[IssueRecoveryParams](),
	{"POST", "/v1/users/:name/temporary"}:     reflect.TypeFor[IssueTemporaryParams](),
	{"POST", "/v1/users/import"}:              reflect.TypeFor[ImportUsersParams](),
	{"GET", "/v1/users/export"}:               reflect.TypeFor[ExportUsersParams](),
	{"PATCH", "/v1/users/:name"}:              reflect.TypeFor[EditUserParams](),
	{"PATCH", "/v1/tokens/:serial"}:           reflect.TypeFor[AnnotateTokenParams](),
	{"POST", "/v1/tokens/bulk"}:               reflect.TypeFor[BulkTokensParams](),
	{"POST", "/v1/pin"}:                       reflect.TypeFor[ChangePinParams](),
	{"GET", "/v1/users/:name/story"}:          reflect.TypeFor[UserStoryParams](),
	{"GET", "/v1/tokens/:serial/drift"}:       reflect.TypeFor[ShowDriftParams](),
	{"GET", "/v1/tokens/:serial/story"}:       reflect.TypeFor[TokenStoryParams](),
	{"PUT", "/v1/tokens/:serial/expiry"}:      reflect.TypeFor[SetExpiryParams](),
	{"POST", "/v1/tokens/:serial/activate"}:   reflect.TypeFor[ActivateTokenParams](),
	{"POST", "/v1/tokens/:serial/replace"}:    reflect.TypeFor[ReplaceTokenParams](),
	{"GET", "/v1/reports/credentials"}:        reflect.TypeFor[ReportCredentialsParams](),
	{"GET", "/v1/radius/watch"}:               reflect.TypeFor[WatchRadiusParams](),
	{"GET", "/v1/reports/summary"}:            reflect.TypeFor[ReportSummaryParams](),
	{"GET", "/v1/fido/models"}:                reflect.TypeFor[ListModelsParams](),
	{"GET", "/v1/fido/allowed"}:               reflect.TypeFor[AllowedParams](),
	{"GET", "/.well-known/webauthn"}:          reflect.TypeFor[RelatedOriginsParams](),
	{"GET", "/v1/policies/applying"}:          reflect.TypeFor[ApplyingPoliciesParams](),
	{"DELETE", "/v1/policies/:id"}:            reflect.TypeFor[DeletePolicyParams](),
	{"DELETE", "/v1/policies/templates/:id"}:  reflect.TypeFor[DeleteTemplateParams](),
	{"DELETE", "/v1/policies/links/:id"}:      reflect.TypeFor[DeleteLinkParams](),
}

// slow are the operations that take as long as they take: those with a large body
// or an answer without end, and those that go through a million rows.
var slow = []routeKey{
	{"POST", "/v1/imports"}, {"GET", "/v1/imports/:id"}, {"POST", "/v1/imports/:id/undo"}, {"GET", "/v1/audit/verify"},
	{"POST", "/v1/audit/verify"}, {"GET", "/v1/audit/export"}, {"POST", "/v1/audit/cut"},
	{"POST", "/v1/fido/metadata"}, {"POST", "/v1/tokens/bulk"}, {"GET", "/v1/reports/credentials"}, {"GET", "/v1/reports/summary"},
	{"POST", "/v1/users/import"}, {"GET", "/v1/users/export"}, {"POST", "/v1/policies/replay"}, {"GET", "/v1/radius/watch"},
}

// secret are those whose body holds what stays a secret.
var secret = []routeKey{
	{"POST", "/v1/imports"}, {"PUT", "/v1/users/:name/pin"}, {"POST", "/v1/pin"}, {"POST", "/v1/session"}, {"POST", "/v1/session/renew"},
	{"PUT", "/v1/sinks/:name"}, {"POST", "/v1/clients/:name/test"},
}

// open are those that people sign in by, who have no key yet.
var open = []routeKey{{"POST", "/v1/session"}, {"POST", "/v1/webauthn/login/begin"}, {"POST", "/v1/webauthn/login/finish"}}

// routesOf makes the table of routes from the router's.
func routesOf(registered []*echo.Route) map[routeKey]*route {
	routes := make(map[routeKey]*route, len(registered))
	for _, r := range registered {
		key := routeKey{r.Method, r.Path}
		to := &route{key: strings.HasPrefix(r.Path, "/v1/")}
		if t, ok := queries[key]; ok {
			to.query = fieldsOf(t, "form")
		}
		routes[key] = to
	}
	for _, key := range slow {
		routes[key].slow = true
	}
	for _, key := range secret {
		routes[key].seeds = true
	}
	for _, key := range open {
		routes[key].open = true
	}
	return routes
}

// Headers that every answer carries. The slices are shared: nobody appends.
var (
	nosniff    = []string{"nosniff"}
	noReferrer = []string{"no-referrer"}
	noFrames   = []string{"default-src 'none'; frame-ancestors 'none'"}
	noStore    = []string{"no-store"}
	transport  = []string{"max-age=31536000"}
	ending     = []string{"close"}
)

// around is what happens around each handler: headers, panics, errors, metrics.
func (s *Server) around(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		started := time.Now()
		s.open.Add(1)
		defer s.open.Add(-1)
		r := c.Request()
		to := s.routes[routeKey{r.Method, c.Path()}]

		h := c.Response().Header()
		h["X-Content-Type-Options"] = nosniff
		h["Referrer-Policy"] = noReferrer
		h["Content-Security-Policy"] = noFrames
		if s.cert != nil {
			h["Strict-Transport-Security"] = transport
		}
		if to == nil || to.key {
			h["Cache-Control"] = noStore
		}

		if to != nil && to.seeds {
			h["Connection"] = ending
			defer leaveNothing(c)
		}
		whole := true
		if err := s.guard(next, c, to); err != nil {
			whole = s.fail(c, err)
		}
		s.metrics.observe(c, to, started)
		if !whole {
			panic(http.ErrAbortHandler) // net/http closes the connection, and says nothing
		}
		return nil
	}
}

// guard turns a panic into an error.
func (s *Server) guard(next echo.HandlerFunc, c echo.Context, to *route) (err error) {
	defer func() {
		v := recover()
		if v == http.ErrAbortHandler {
			panic(v)
		}
		if v != nil {
			err = panicked(v, debug.Stack())
		}
	}()
	return s.admit(next, c, to)
}

// admit lets a request in that has a key and no parameter that we do not know,
// and bounds its time.
func (s *Server) admit(next echo.HandlerFunc, c echo.Context, to *route) error {
	if to == nil || !to.key {
		return next(c)
	}
	r := c.Request()
	p, err := s.authenticate(r)
	if err == errNoKey && to.open {
		p, err = tokens.SignInPrincipal(source(r)), nil
	}
	if err != nil {
		return err
	}
	c.Set(principalKey, p)
	if !isText(r.URL.Path) {
		return fmt.Errorf("%w: the path holds a control character or is not valid UTF-8", tokens.ErrInvalid)
	}
	if r.URL.RawQuery != "" {
		if err := checkQuery(r.URL.RawQuery, to.query); err != nil {
			return err
		}
	}
	if to.slow {
		return s.unhurried(next, c)
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.Timeout)
	defer cancel()
	c.SetRequest(r.WithContext(ctx))
	return next(c)
}

// unhurried lets a request take its time. Without a read deadline the server
// notices that a client went away all the same, and so does the core.
func (s *Server) unhurried(next echo.HandlerFunc, c echo.Context) error {
	rc := http.NewResponseController(c.Response())
	for _, err := range []error{rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{})} {
		if err != nil && !errors.Is(err, http.ErrNotSupported) {
			return fmt.Errorf("lift the deadlines of a request: %w", err)
		}
	}
	err := next(c)
	s.hasten(c) // for the error
	return err
}

// hasten gives the answer of an unhurried request the deadline of any other.
func (s *Server) hasten(c echo.Context) {
	// Where deadlines are not supported the answer is as slow as its reader.
	_ = http.NewResponseController(c.Response()).SetWriteDeadline(time.Now().Add(2 * s.cfg.Timeout))
}

// principalKey is where a request's principal is kept.
const principalKey = "principal"

// who is the principal of a request. Were there none, the zero Principal that
// it answers may do nothing.
func who(c echo.Context) tokens.Principal {
	p, _ := c.Get(principalKey).(tokens.Principal)
	return p
}

// authenticate takes the key from the header (RFC 6750, section 2.1) and asks
// the core whose it is.
func (s *Server) authenticate(r *http.Request) (tokens.Principal, error) {
	given := r.Header["Authorization"]
	if len(given) == 0 {
		return tokens.Principal{}, errNoKey
	}
	scheme, key, _ := strings.Cut(given[0], " ")
	if len(given) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return tokens.Principal{}, fmt.Errorf("%w: the Authorization header is not one Bearer key", tokens.ErrUnknownKey)
	}
	return s.cfg.Core.Admit(r.Context(), strings.TrimSpace(key), source(r))
}

// source is the address that a request came from: that of the connection, and
// not what any header says.
func source(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return strings.TrimPrefix(host, "::ffff:")
}

// moments are the query parameters that are times. The decoder takes an empty one for
// none, and a search without its bounds finds more than was asked for.
var moments = []string{"since", "until", "time_origin"}

// checkQuery refuses a parameter that is unknown or stands there twice: a
// mistyped dry_run must not import.
func checkQuery(raw string, known []string) error {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return fmt.Errorf("%w: the query is malformed", tokens.ErrInvalid)
	}
	for name, values := range query {
		if !slices.Contains(known, name) {
			if len(known) == 0 {
				return fmt.Errorf("%w: there are no query parameters here", tokens.ErrInvalid)
			}
			return fmt.Errorf("%w: unknown query parameter; there are: %s", tokens.ErrInvalid, strings.Join(known, ", "))
		}
		if len(values) > 1 {
			return fmt.Errorf("%w: the query parameter %q stands there twice", tokens.ErrInvalid, name)
		}
		if slices.Contains(moments, name) && strings.TrimSpace(values[0]) == "" {
			return fmt.Errorf("%w: the query parameter %q is empty; it is a time, such as 2026-03-01T12:00:00Z", tokens.ErrInvalid, name)
		}
		if !isText(values[0]) {
			return fmt.Errorf("%w: the query parameter %q holds a control character or is not valid UTF-8", tokens.ErrInvalid, name)
		}
	}
	return nil
}

// isText says whether a string is something that people write in one line. No
// name, serial or word to search for is anything else, and databases stumble
// over the rest.
func isText(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
		}
	}
	return true
}
