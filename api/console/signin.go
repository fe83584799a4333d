package console

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"watchword/tokens"
	"watchword/webauthn"
)

// signin is GET /signin, with the realm in the query where it is not the default
// one.
func (c *Console) signin(w http.ResponseWriter, r *http.Request) error {
	party, here := c.party(r)
	realm := r.URL.Query().Get("realm")
	if _, err := tokens.ParseRealm(realm); err != nil {
		realm = ""
	}
	c.show(w, http.StatusOK, "signin", struct {
		Here         bool
		Party, Realm string
		Origins      []string
	}{here, party.Name, realm, c.origins()})
	return nil
}

// beginSignin is POST /console/signin/begin. Without a user the browser offers the
// passkeys that it finds.
func (c *Console) beginSignin(r *http.Request, body []byte) (any, error) {
	in, err := decode[struct {
		User  string `json:"user"`
		Realm string `json:"realm"`
	}](body)
	if err != nil {
		return nil, err
	}
	party, err := c.here(r)
	if err != nil {
		return nil, err
	}
	begun, err := c.cfg.Keys.BeginLogin(r.Context(), tokens.ConsolePrincipal(c.cfg.Source(r)), webauthn.LoginRequest{
		Realm: in.Realm, User: strings.TrimSpace(in.User), RPID: party.ID,
	})
	return ceremony{begun.Options, begun.Session}, err
}

// outcome is what an application gets to know, and shows here.
type outcome struct {
	Result       string    `json:"result"`
	User         string    `json:"user,omitempty"`
	Realm        string    `json:"realm,omitempty"`
	Serial       string    `json:"serial,omitempty"`
	Model        string    `json:"model,omitempty"`
	AAGUID       string    `json:"aaguid,omitempty"`
	Attestation  string    `json:"attestation,omitempty"`
	Format       string    `json:"format,omitempty"`
	UserVerified bool      `json:"user_verified,omitempty"`
	Synced       bool      `json:"synced,omitempty"`
	Time         time.Time `json:"time,omitzero"`
}

// finishSignin is POST /console/signin/finish. Whatever is wrong, it is the same
// answer; the reason is in the audit.
func (c *Console) finishSignin(r *http.Request, body []byte) (any, error) {
	in, err := decode[struct {
		Session  string          `json:"session"`
		Response json.RawMessage `json:"response"`
	}](body)
	if err != nil {
		return nil, err
	}
	got, err := c.cfg.Keys.FinishLogin(r.Context(), tokens.ConsolePrincipal(c.cfg.Source(r)), in.Session, in.Response, "console")
	if err != nil && !rejected(err) {
		return nil, err
	}
	if err != nil || !got.Accept {
		return outcome{Result: "reject"}, nil
	}
	out := outcome{
		Result: "accept", User: got.User, Realm: got.Realm, Serial: got.Token.Serial, Model: got.Token.Model,
		UserVerified: got.UserVerified, Time: got.At.UTC(),
	}
	if k := got.Token.Credential; k != nil {
		out.AAGUID, out.Attestation, out.Format, out.Synced = aaguid(k.AAGUID), k.Attestation, k.Format, k.Synced
	}
	return out, nil
}

// rejected says whether an error is about the answer, the key or the user. None of
// them is told apart.
func rejected(err error) bool {
	for _, kind := range []error{tokens.ErrInvalid, tokens.ErrNotFound, tokens.ErrExists, tokens.ErrState, tokens.ErrTampered, tokens.ErrWrongCode} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// aaguid writes an AAGUID as people know it.
func aaguid(id [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
