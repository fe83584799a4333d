package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
	"watchword/webauthn"
)

// ShowMetadata is GET /v1/fido/metadata.
func (s *Server) ShowMetadata(c echo.Context) error {
	keys, err := s.fido()
	if err != nil {
		return err
	}
	info, err := keys.Metadata(c.Request().Context(), who(c))
	return reply(c, metadataView(info), err)
}

// ImportMetadata is POST /v1/fido/metadata. One blob at a time is read: it can be
// large. Whoever may not import one is told before, and so keeps nobody waiting who
// may.
func (s *Server) ImportMetadata(c echo.Context) error {
	keys, err := s.fido()
	if err != nil {
		return err
	}
	if err := keys.MayImportMetadata(c.Request().Context(), who(c)); err != nil {
		return err
	}
	if !s.blobs.TryLock() {
		return fmt.Errorf("%w: other metadata is being imported", tokens.ErrOverloaded)
	}
	defer s.blobs.Unlock()
	blob, err := s.receiveBlob(c)
	if err != nil {
		return err
	}
	info, err := keys.ImportMetadata(c.Request().Context(), who(c), blob)
	s.hasten(c)
	return reply(c, metadataView(info), err)
}

// receiveBlob reads a body of octets.
func (s *Server) receiveBlob(c echo.Context) ([]byte, error) {
	r := c.Request()
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/octet-stream" {
		return nil, fmt.Errorf("%w: send the blob as it came, with 'Content-Type: application/octet-stream'", errMediaType)
	}
	tooLarge := fmt.Errorf("%w: the metadata is larger than %d bytes", errTooLarge, webauthn.MaxMetadata)
	if r.ContentLength > webauthn.MaxMetadata {
		return nil, tooLarge
	}
	up := &upload{file: r.Body, control: http.NewResponseController(c.Response()), stall: s.cfg.Stall}
	var b bytes.Buffer
	if r.ContentLength > 0 {
		b.Grow(int(min(r.ContentLength, 1<<20)) + bytes.MinRead) // and not what somebody only says
	}
	if n, err := io.Copy(&b, io.LimitReader(up, webauthn.MaxMetadata+1)); err != nil {
		return nil, err
	} else if n > webauthn.MaxMetadata {
		return nil, tooLarge
	}
	if b.Len() == 0 {
		return nil, fmt.Errorf("%w: the body is empty; the metadata's blob is needed", tokens.ErrInvalid)
	}
	return b.Bytes(), nil
}

func metadataView(m webauthn.MetadataInfo) MetadataInfo {
	m.NextUpdate, m.Imported = m.NextUpdate.UTC(), instant(m.Imported)
	return m
}

// ListModels is GET /v1/fido/models. Its cursor names a model.
func (s *Server) ListModels(c echo.Context, params ListModelsParams) error {
	keys, err := s.fido()
	if err != nil {
		return err
	}
	p, err := pageOf(nil, params.Limit)
	if err != nil {
		return err
	}
	if err := bounded("aaguid", params.Aaguid, 64); err != nil {
		return err
	}
	rows, err := keys.Models(c.Request().Context(), who(c), webauthn.ModelQuery{
		Q: value(params.Q), AAGUID: value(params.Aaguid), Limit: p.limit + 1, After: value(params.Cursor),
	})
	if err != nil {
		return err
	}
	var next *string
	if len(rows) > p.limit {
		rows = rows[:p.limit]
		last := &rows[p.limit-1]
		next = &last.AAGUID
		if last.AAGUID == "" && len(last.Attesters) > 0 {
			next = &last.Attesters[0]
		}
	}
	return reply(c, ModelPage{Items: views(rows, func(m *webauthn.Model) Model { return *m }), Next: next}, nil)
}

// Allowed is GET /v1/fido/allowed.
func (s *Server) Allowed(c echo.Context, params AllowedParams) error {
	keys, err := s.fido()
	if err != nil {
		return err
	}
	got, err := keys.Allowed(c.Request().Context(), who(c), value(params.Realm), value(params.Groups), params.Aaguid)
	if got.Reasons == nil {
		got.Reasons = []string{}
	}
	return reply(c, ModelVerdict{Allowed: got.Allowed, Reasons: got.Reasons, Model: got.Model}, err)
}

// ShowRules is GET /v1/fido/rules.
func (s *Server) ShowRules(c echo.Context) error {
	keys, err := s.fido()
	if err != nil {
		return err
	}
	return s.showRules(c, keys)
}

func (s *Server) showRules(c echo.Context, keys FIDO) error {
	rules, version, err := keys.Rules(c.Request().Context(), who(c))
	if err != nil {
		return err
	}
	text, err := json.Marshal(rules)
	return reply(c, KeyRules{Version: version, Rules: text}, err)
}

// SetRules is PUT /v1/fido/rules.
func (s *Server) SetRules(c echo.Context) error {
	in, err := decode[KeyRules](c, "version", "rules")
	if err != nil {
		return err
	}
	rules, err := ruleSet(in.Rules)
	if err != nil {
		return err
	}
	keys, err := s.fido()
	if err != nil {
		return err
	}
	if err := keys.SetRules(c.Request().Context(), who(c), rules, in.Version); err != nil {
		return err
	}
	return s.showRules(c, keys)
}

// ruleSet reads rules strictly: one that is mistyped must not be left out.
func ruleSet(text json.RawMessage) (webauthn.RuleSet, error) {
	var rules webauthn.RuleSet
	if err := isObject("rules", text); err != nil {
		return rules, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&rules); err != nil {
		// Rules hold no secrets, and an administrator must find the mistake.
		return rules, fmt.Errorf("%w: the rules are not understood: %w", tokens.ErrInvalid, errors.New(err.Error()))
	}
	return rules, nil
}

// ListRoots is GET /v1/fido/roots.
func (s *Server) ListRoots(c echo.Context) error {
	keys, err := s.fido()
	if err != nil {
		return err
	}
	list, err := keys.Roots(c.Request().Context(), who(c))
	return reply(c, RootPage{Items: views(list, func(r *webauthn.RootInfo) RootInfo { return *r })}, err)
}

// SetRoots is PUT /v1/fido/roots.
func (s *Server) SetRoots(c echo.Context) error {
	in, err := decode[AttestationRoots](c)
	if err != nil {
		return err
	}
	keys, err := s.fido()
	if err != nil {
		return err
	}
	if err := keys.SetRoots(c.Request().Context(), who(c), []byte(in.Pem)); err != nil {
		return err
	}
	return s.ListRoots(c)
}

// ListConcerns is GET /v1/fido/concerns.
func (s *Server) ListConcerns(c echo.Context) error {
	keys, err := s.fido()
	if err != nil {
		return err
	}
	list, err := keys.Concerns(c.Request().Context(), who(c))
	return reply(c, ConcernPage{Items: views(list, func(x *webauthn.Concern) Concern { return *x })}, err)
}
