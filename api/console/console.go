package console

import (
	"context"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"watchword/tokens"
	"watchword/webauthn"
)

// Enroller is what invitations need of tokens.Service. Every method authorises and
// audits by itself.
type Enroller interface {
	// Invited answers who may enrol with an invitation's code; ErrUnknownKey
	// whatever is wrong with it. It does not use the invitation up.
	Invited(ctx context.Context, code string) (tokens.Principal, tokens.Invitation, error)
	// EnrolSoft makes a software token that waits for two codes, and answers its
	// otpauth URI, which the caller wipes.
	EnrolSoft(ctx context.Context, p tokens.Principal, n tokens.NewSoft) (tokens.Token, []byte, error)
	// Activate turns it on by two consecutive codes.
	Activate(ctx context.Context, p tokens.Principal, realm, serial, code1, code2 string) (tokens.Token, error)
}

// Ceremonies is what the pages need of webauthn.Service.
type Ceremonies interface {
	BeginRegistration(ctx context.Context, p tokens.Principal, r webauthn.RegistrationRequest) (webauthn.Ceremony, error)
	FinishRegistration(ctx context.Context, p tokens.Principal, session string, response []byte) (tokens.Token, error)
	BeginLogin(ctx context.Context, p tokens.Principal, r webauthn.LoginRequest) (webauthn.Ceremony, error)
	FinishLogin(ctx context.Context, p tokens.Principal, session string, response []byte, transport string) (tokens.KeyResult, error)
	Parties() []webauthn.Party
}

// Config is what a Console is made of. Only Core is required.
type Config struct {
	Core Enroller
	Keys Ceremonies // nil: no relying party is configured, so there are software tokens only

	// Name is what pages and authenticator apps call this installation. Empty: the
	// name of the first relying party, or else Watchword.
	Name string

	// Source says where a request came from. Nil: its RemoteAddr.
	Source func(*http.Request) string

	Log *slog.Logger // nil: discarded
}

// Console serves the pages. It is an http.Handler for the paths that Paths lists.
type Console struct {
	cfg     Config
	mux     *http.ServeMux
	pages   map[string]*template.Template
	assets  map[string]asset
	parties []webauthn.Party
	limit   limiter
}

// New makes a console.
func New(cfg Config) (*Console, error) {
	if cfg.Core == nil {
		return nil, errors.New("console: a core is needed")
	}
	if cfg.Source == nil {
		cfg.Source = func(r *http.Request) string { return r.RemoteAddr }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Console{cfg: cfg, mux: http.NewServeMux()}
	if cfg.Keys != nil {
		c.parties = cfg.Keys.Parties()
	}
	if c.cfg.Name == "" && len(c.parties) > 0 {
		c.cfg.Name = c.parties[0].Name
	}
	if c.cfg.Name == "" {
		c.cfg.Name = "Watchword"
	}
	var err error
	if c.pages, err = parsePages(); err != nil {
		return nil, err
	}
	if c.assets, err = readAssets(); err != nil {
		return nil, err
	}
	c.mux.HandleFunc("GET /assets/{name}", c.asset)
	c.mux.HandleFunc("GET /enrol/done", c.page(c.done))
	c.mux.HandleFunc("GET /enrol/{code}", c.page(c.invitation))
	c.mux.HandleFunc("POST /enrol/{code}/app", c.page(c.enrolApp))
	c.mux.HandleFunc("POST /enrol/{code}/confirm", c.page(c.confirmApp))
	if c.signsIn() {
		c.mux.HandleFunc("POST /console/enrol/begin", c.endpoint(c.beginEnrol))
		c.mux.HandleFunc("POST /console/enrol/finish", c.endpoint(c.finishEnrol))
		c.mux.HandleFunc("GET /signin", c.page(c.signin))
		c.mux.HandleFunc("POST /console/signin/begin", c.endpoint(c.beginSignin))
		c.mux.HandleFunc("POST /console/signin/finish", c.endpoint(c.finishSignin))
	}
	return c, nil
}

// Name is what the pages call this installation.
func (c *Console) Name() string { return c.cfg.Name }

// signsIn says whether there are FIDO keys at all.
func (c *Console) signsIn() bool { return len(c.parties) > 0 }

// Paths are what a Console answers: a method, and a path that ends in a slash
// where all below it is meant.
func (c *Console) Paths() [][2]string {
	list := [][2]string{{"GET", "/enrol/"}, {"HEAD", "/enrol/"}, {"POST", "/enrol/"}, {"GET", "/assets/"}, {"HEAD", "/assets/"}}
	if c.signsIn() {
		list = append(list, [2]string{"GET", "/signin"}, [2]string{"HEAD", "/signin"}, [2]string{"POST", "/console/"})
	}
	return list
}

// ServeHTTP answers a request for a page, an asset, or what a page asks for.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	for name, value := range headers {
		h.Set(name, value)
	}
	if _, pattern := c.mux.Handler(r); pattern == "" {
		c.show(w, http.StatusNotFound, "sorry", nothing)
		return
	}
	c.mux.ServeHTTP(w, r)
}

// headers of every answer. A page loads nothing that is not ours, sends nothing to
// anybody else, stands in no frame, tells no other page its address (which may hold
// an invitation's code), and stays in no cache.
var headers = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
		"connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
	"Permissions-Policy":           "publickey-credentials-create=(self), publickey-credentials-get=(self)",
	"Referrer-Policy":              "no-referrer",
	"X-Content-Type-Options":       "nosniff",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Cache-Control":                "no-store",
}

// party is the relying party whose pages are at the address that a request was
// sent to.
func (c *Console) party(r *http.Request) (webauthn.Party, bool) {
	for _, p := range c.parties {
		if slices.ContainsFunc(p.Origins, func(origin string) bool {
			u, err := url.Parse(origin)
			return err == nil && strings.EqualFold(u.Host, r.Host)
		}) {
			return p, true
		}
	}
	return webauthn.Party{}, false
}

// origins are the addresses at which keys can be used.
func (c *Console) origins() []string {
	var list []string
	for _, p := range c.parties {
		list = append(list, p.Origins...)
	}
	return list
}
