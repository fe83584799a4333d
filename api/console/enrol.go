package console

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"watchword/tokens"
	"watchword/webauthn"
)

// invitation is the page of an invitation.
type invitation struct {
	User    string
	Realm   string // empty: the default one
	Expires time.Time
	Code    string

	Key     bool // a FIDO key may be enrolled, and can be at this address
	Keyless bool // it may be, but not at this address
	Party   string
	Origins []string // where it can be
	App     bool     // a software token may be enrolled
}

// invited is whom the code in a request's path lets in.
func (c *Console) invited(r *http.Request, code string) (tokens.Principal, tokens.Invitation, error) {
	p, i, err := c.cfg.Core.Invited(r.Context(), code)
	return p.From(c.cfg.Source(r)), i, err
}

// invitation is GET /enrol/{code}. It does not use the invitation up: mail scanners
// look at every link.
func (c *Console) invitation(w http.ResponseWriter, r *http.Request) error {
	code := r.PathValue("code")
	_, i, err := c.invited(r, code)
	if err != nil {
		return err
	}
	v := invitation{User: i.User, Expires: i.Expires, Code: code, App: slices.Contains(i.Kinds, tokens.InviteTOTP)}
	if i.Realm != tokens.DefaultRealm {
		v.Realm = i.Realm
	}
	if slices.Contains(i.Kinds, tokens.InviteFIDO) {
		party, here := c.party(r)
		v.Key, v.Keyless, v.Party, v.Origins = here, !here, party.Name, c.origins()
	}
	c.show(w, http.StatusOK, "enrol", v)
	return nil
}

// begin is what the script of the page asks with.
type beginEnrol struct {
	Code    string `json:"code"`
	Passkey bool   `json:"passkey"`
}

// beginEnrol is POST /console/enrol/begin: how to ask the browser for a key.
func (c *Console) beginEnrol(r *http.Request, body []byte) (any, error) {
	in, err := decode[beginEnrol](body)
	if err != nil {
		return nil, err
	}
	p, i, err := c.invited(r, in.Code)
	if err != nil {
		return nil, err
	}
	party, err := c.here(r)
	if err != nil {
		return nil, err
	}
	begun, err := c.cfg.Keys.BeginRegistration(r.Context(), p, webauthn.RegistrationRequest{
		Realm: i.Realm, User: i.User, RPID: party.ID, Discoverable: in.Passkey,
	})
	return ceremony{begun.Options, begun.Session}, err
}

// ceremony is what a script needs of one.
type ceremony struct {
	Options json.RawMessage `json:"options"`
	Session string          `json:"session"`
}

// here is party for what a script asks: it is asked only where there is one.
func (c *Console) here(r *http.Request) (webauthn.Party, error) {
	party, ok := c.party(r)
	if !ok {
		return party, fmt.Errorf("%w: security keys cannot be used at this address", tokens.ErrState)
	}
	return party, nil
}

// finishEnrol is POST /console/enrol/finish.
func (c *Console) finishEnrol(r *http.Request, body []byte) (any, error) {
	in, err := decode[struct {
		Code     string          `json:"code"`
		Session  string          `json:"session"`
		Response json.RawMessage `json:"response"`
	}](body)
	if err != nil {
		return nil, err
	}
	p, _, err := c.invited(r, in.Code)
	if err != nil {
		return nil, err
	}
	t, err := c.cfg.Keys.FinishRegistration(r.Context(), p, in.Session, in.Response)
	if err != nil {
		return nil, err
	}
	return struct {
		Next string `json:"next"`
	}{donePath(&t)}, nil
}

// done is GET /enrol/done, the end of every enrolment. What it says of the token
// is for the person to read, and proves nothing.
func (c *Console) done(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	serial := q.Get("serial")
	if tokens.ValidSerial(serial) != nil {
		serial = ""
	}
	c.show(w, http.StatusOK, "done", struct {
		Key, SignIn bool
		Serial      string
	}{q.Get("kind") == string(tokens.FIDO), c.signsIn(), serial})
	return nil
}

func donePath(t *tokens.Token) string {
	return "/enrol/done?" + url.Values{"kind": {string(t.Type)}, "serial": {t.Serial}}.Encode()
}

// enrolApp is POST /enrol/{code}/app: a software token, shown as a QR code and as a
// key to type.
func (c *Console) enrolApp(w http.ResponseWriter, r *http.Request) error {
	code := r.PathValue("code")
	p, i, err := c.invited(r, code)
	if err != nil {
		return err
	}
	t, uri, err := c.cfg.Core.EnrolSoft(r.Context(), p, tokens.NewSoft{Realm: i.Realm, User: i.User, Issuer: c.cfg.Name})
	if err != nil {
		return err
	}
	defer clear(uri)
	return c.showKey(w, app{User: i.User, Code: code, Serial: t.Serial, Shown: true}, uri)
}

// app is the page of a software token that waits for two codes.
type app struct {
	User, Code, Serial string
	Shown              bool   // with the key, which can be seen once
	Problem            string // why the codes were not taken
}

// wrongCodes is what is said of two codes that do not match.
const wrongCodes = "The codes did not match. Type one that the app shows, wait until it shows the next, and type that one behind it; none may be left out in between. See that the phone's clock is right."

// confirmApp is POST /enrol/{code}/confirm, with two codes in a row.
func (c *Console) confirmApp(w http.ResponseWriter, r *http.Request) error {
	code := r.PathValue("code")
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("%w: the form is not understood; go back, and send it again", tokens.ErrInvalid)
	}
	p, i, err := c.invited(r, code)
	if err != nil {
		return err
	}
	serial := r.PostForm.Get("serial")
	typed := func(field string) string { // apps show a space in the middle
		return strings.Join(strings.Fields(r.PostForm.Get(field)), "")
	}
	t, err := c.cfg.Core.Activate(r.Context(), p, i.Realm, serial, typed("first"), typed("second"))
	v := app{User: i.User, Code: code, Serial: serial}
	switch {
	case errors.Is(err, tokens.ErrWrongCode):
		v.Problem = wrongCodes
	case errors.Is(err, tokens.ErrState):
		v.Problem = sentence(err, tokens.ErrState)
	case err != nil:
		return err
	}
	if v.Problem != "" {
		c.show(w, http.StatusUnprocessableEntity, "app", v)
		return nil
	}
	http.Redirect(w, r, donePath(&t), http.StatusSeeOther)
	return nil
}
