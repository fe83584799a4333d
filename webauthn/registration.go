package webauthn

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// RegistrationRequest begins the enrolment of a FIDO key.
type RegistrationRequest struct {
	Realm string // empty: the principal's, or the default one
	User  string // whose it will be; empty with Stock
	Stock bool   // it is enrolled for nobody in particular, and given to somebody later
	RPID  string // relying party; empty: the default one
	// Discoverable demands a passkey: a credential that is found without a user name.
	Discoverable bool
	// UserVerification is required, preferred or discouraged, and at least as
	// strict as the setting. Empty: as the setting says.
	UserVerification string
	// Attestation asks for direct or enterprise attestation where the setting asks for
	// less. Empty: as the setting says.
	Attestation string
}

// Ceremony is what a browser needs for its part.
type Ceremony struct {
	// Options are {"publicKey": ...} in JSON, for navigator.credentials.create or
	// get by way of PublicKeyCredential.parse...OptionsFromJSON.
	Options json.RawMessage
	Session string    // to be handed back with the answer, on whichever node
	Expires time.Time // an answer after it is refused
}

type descriptor struct {
	Type       string   `json:"type"`
	ID         string   `json:"id"`
	Transports []string `json:"transports,omitempty"`
}

type parameter struct {
	Type string `json:"type"`
	Alg  int64  `json:"alg"`
}

// creationOptions is PublicKeyCredentialCreationOptionsJSON (section 5.1.8).
type creationOptions struct {
	RP struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"rp"`
	User struct {
		ID          string `json:"id"`
		Name        string `json:"name"`
		DisplayName string `json:"displayName"`
	} `json:"user"`
	Challenge string       `json:"challenge"`
	Params    []parameter  `json:"pubKeyCredParams"`
	Timeout   int64        `json:"timeout"` // ms
	Exclude   []descriptor `json:"excludeCredentials"`
	Selection struct {
		ResidentKey  string `json:"residentKey"`
		Required     bool   `json:"requireResidentKey"`
		Verification string `json:"userVerification"`
	} `json:"authenticatorSelection"`
	Attestation string         `json:"attestation"`
	Extensions  map[string]any `json:"extensions"`
}

// The extensions that registrations ask for. credProtect (CTAP 2.1, section 12.1)
// has a passkey named only to who verified or knows it; browsers ask for it
// themselves, and only what was asked for may be answered.
const (
	extProperties = "credProps"
	extProtect    = "credProtect"
)

// BeginRegistration begins to enrol a key for a user, or as stock. It writes nothing.
func (s *Service) BeginRegistration(ctx context.Context, p tokens.Principal, r RegistrationRequest) (Ceremony, error) {
	party, err := s.party(r.RPID)
	if err != nil {
		return Ceremony{}, err
	}
	if r.Stock != (r.User == "") {
		return Ceremony{}, fmt.Errorf("%w: a key is enrolled for a user, or as stock", tokens.ErrInvalid)
	}
	verification, err := s.verification(r.UserVerification)
	if err != nil {
		return Ceremony{}, err
	}
	attestation, err := s.attestation(r.Attestation)
	if err != nil {
		return Ceremony{}, err
	}
	st := &session{Kind: kindRegister, RPID: party.ID, Verification: verification, Discoverable: r.Discoverable}
	if err := s.draw(st); err != nil {
		return Ceremony{}, err
	}
	holder, err := s.holder(ctx, p, st, r.Realm, r.User)
	if err != nil {
		return Ceremony{}, err
	}
	st.Realm, st.User, st.UserID = holder.Realm, holder.User, holder.UserID
	if err := s.begin(ctx, st); err != nil {
		return Ceremony{}, err
	}
	var o creationOptions
	o.RP.ID, o.RP.Name = party.ID, party.Name
	o.User.ID, o.User.Name, o.User.DisplayName = sessionEncoding.EncodeToString(holder.Handle), holder.Name, holder.Name
	o.Challenge = sessionEncoding.EncodeToString(st.challenge)
	for _, alg := range algorithms {
		o.Params = append(o.Params, parameter{"public-key", alg})
	}
	o.Timeout = s.cfg.TTL.Milliseconds()
	o.Exclude = descriptors(holder.Credentials)
	o.Selection.ResidentKey, o.Selection.Required, o.Selection.Verification = "discouraged", r.Discoverable, st.Verification
	if r.Discoverable {
		o.Selection.ResidentKey = "required"
	}
	o.Attestation = attestation
	o.Extensions = map[string]any{
		extProperties:                       true,
		"credentialProtectionPolicy":        "userVerificationOptionalWithCredentialIDList",
		"enforceCredentialProtectionPolicy": false,
	}
	return st.ceremony(o)
}

// attestations are what can be asked for, least first.
var attestations = []string{"none", "direct", "enterprise"}

// attestation is what a registration asks for: at least as much as the setting says.
func (s *Service) attestation(asked string) (string, error) {
	switch rank := slices.Index(attestations, asked); {
	case asked == "":
		return s.cfg.Attestation, nil
	case rank < 0:
		return "", fmt.Errorf("%w: attestation is %s; it can be direct or enterprise", tokens.ErrInvalid, printable(asked))
	case rank < slices.Index(attestations, s.cfg.Attestation):
		return s.cfg.Attestation, nil
	}
	return asked, nil
}

// holder is for whom a key is enrolled: a user, or for stock nobody, of whom only the
// realm and the handle are known.
func (s *Service) holder(ctx context.Context, p tokens.Principal, st *session, realm, user string) (tokens.KeyHolder, error) {
	if user != "" {
		return s.core.KeyHolder(ctx, p, realm, user, st.RPID)
	}
	h, err := s.core.KeyStock(ctx, p, realm, st.Nonce[:])
	h.Name = "Key " + strings.ToUpper(hex.EncodeToString(st.Nonce[:4])) // people see it where they choose among passkeys
	return h, err
}

func (st *session) ceremony(options any) (Ceremony, error) {
	raw, err := json.Marshal(map[string]any{"publicKey": options})
	return Ceremony{Options: raw, Session: st.text(), Expires: st.expires()}, err
}

func descriptors(held []tokens.HeldKey) []descriptor {
	list := make([]descriptor, len(held))
	for i, k := range held {
		list[i] = descriptor{"public-key", sessionEncoding.EncodeToString(k.ID), k.Transports}
	}
	return list
}

// FinishRegistration enrols the key that answered, if the answer holds and the
// rules allow the key. A refusal is audited with its reason; the error wraps
// tokens.ErrInvalid and says it in words. The same answer again, even when the
// registration has expired, is answered with the token that it enrolled.
func (s *Service) FinishRegistration(ctx context.Context, p tokens.Principal, sessionText string, response []byte) (tokens.Token, error) {
	st, err := s.resume(ctx, sessionText, kindRegister)
	if err != nil {
		return tokens.Token{}, err
	}
	holder, err := s.holder(ctx, p, st, st.Realm, st.User)
	if err != nil {
		return s.again(ctx, p, st, response, err)
	}
	n := &tokens.NewFIDO{Realm: st.Realm, User: st.User, Spend: st.spend}
	err = s.register(ctx, st, &holder, response, n)
	if r := (*refusal)(nil); errors.As(err, &r) {
		// It may have come before: in time, and when the rules were others.
		if t, err := s.again(ctx, p, st, response, r); err == nil {
			return t, nil
		}
		return tokens.Token{}, s.core.RefuseKey(ctx, p, st.Realm, st.User, r.reason, r.why, n.Detail)
	} else if err != nil {
		return tokens.Token{}, err
	}
	enrol := s.core.EnrolKey
	if st.stock() {
		enrol = s.core.StockKey
	}
	t, err := enrol(ctx, p, *n)
	if errors.Is(err, tokens.ErrState) || errors.Is(err, tokens.ErrExists) {
		return s.again(ctx, p, st, response, err)
	}
	return t, err
}

// again answers the token that this very answer enrolled before: whoever sent it did
// not hear of it. Where it did not, the answer is what there was to say otherwise. It
// asks neither metadata nor rules, which may have changed since.
func (s *Service) again(ctx context.Context, p tokens.Principal, st *session, response []byte, otherwise error) (tokens.Token, error) {
	if p.Kind == tokens.KindInvitation { // which is used up
		return tokens.Token{}, otherwise
	}
	a, err := parseAnswer(response, kindRegister)
	if err != nil || a.checkClient(st, s.parties[st.RPID]) != nil {
		return tokens.Token{}, otherwise
	}
	discoverable, err := a.discoverable(st)
	if err != nil {
		return tokens.Token{}, otherwise
	}
	proven, err := attest(a, st, s.cfg.Now())
	if err != nil {
		return tokens.Token{}, otherwise
	}
	t, err := s.core.Enrolled(ctx, p, tokens.EnrolledBefore{
		Realm: st.Realm, User: st.User, RPID: st.RPID, ID: proven.auth.AttData.CredentialID,
		PublicKey: proven.auth.AttData.CredentialPublicKey, UserID: st.UserID, Discoverable: discoverable,
	})
	if errors.Is(err, tokens.ErrNotFound) {
		return tokens.Token{}, otherwise
	}
	return t, err
}

// register judges an answer (section 7.1, steps 5 to 27) and fills in what is to
// be enrolled. The error is a *refusal, or a fault.
func (s *Service) register(ctx context.Context, st *session, holder *tokens.KeyHolder, response []byte, n *tokens.NewFIDO) error {
	n.Detail = []audit.Field{{Name: "rp", Value: st.RPID}}
	if !s.cfg.Now().Before(st.expires()) {
		return refuse(reasonExpired, "the registration took too long; begin it again")
	}
	if holder.UserID != st.UserID || holder.UserID == 0 && len(holder.Handle) == 0 {
		return refuse(reasonMalformed, "the registration was begun for another user")
	}
	a, err := parseAnswer(response, kindRegister)
	if err != nil {
		return err
	}
	if err := a.checkClient(st, s.parties[st.RPID]); err != nil {
		return err
	}
	if err := a.checkExtensions(extProperties); err != nil {
		return err
	}
	discoverable, err := a.discoverable(st)
	if err != nil {
		return err
	}
	proven, err := attest(a, st, s.cfg.Now())
	if err != nil {
		return err
	}
	auth := proven.auth
	n.Credential = tokens.Credential{
		ID: auth.AttData.CredentialID, RPID: st.RPID, UserID: st.UserID, PublicKey: auth.AttData.CredentialPublicKey,
		Format: proven.format, AAGUID: proven.aaguid, Transports: a.transports, Discoverable: discoverable,
		UserVerified: auth.verified, Synced: auth.synced,
	}
	if st.stock() {
		n.Credential.Handle = holder.Handle
	}
	if auth.verified {
		n.Detail = append(n.Detail, audit.Field{Name: "user_verified", Value: "true"})
	}
	n.SignCount = auth.Counter
	if st.Verification == "required" && !auth.verified {
		return refuse(reasonUnverified, "a U2F key cannot verify its user, which is required")
	}
	if err := s.admit(ctx, holder, proven, n); err != nil {
		return err
	}
	n.Credential.Attestation = proven.kind
	if proven.aaguid == [16]byte{} {
		n.Credential.Attester = proven.keyID
	}
	return nil
}

// discoverable says whether the credential is a passkey, as far as the browser
// knows (section 10.1.3).
func (a *answer) discoverable(st *session) (bool, error) {
	raw := a.extensions.get(extProperties)
	if raw == nil {
		return st.Discoverable, nil
	}
	properties, err := members(raw, "credProps")
	if err != nil {
		return false, err
	}
	rk := properties.get("rk")
	if rk == nil {
		return st.Discoverable, nil
	}
	var found bool
	if string(rk) == "null" || json.Unmarshal(rk, &found) != nil {
		return false, refuse(reasonMalformed, "rk in credProps is neither true nor false")
	}
	if st.Discoverable && !found {
		return false, refuse(reasonMalformed, "the authenticator made no passkey, which was asked for")
	}
	return found, nil
}

// checkNew looks at what authenticator data of a registration have beyond those
// of a login: the credential that was made.
func (a *authenticator) checkNew(ans *answer) (err error) {
	if !a.Flags.HasAttestedCredentialData() || len(a.AttData.AAGUID) != 16 {
		return refuse(reasonMalformed, "the authenticator data hold no credential")
	}
	if string(a.AttData.CredentialID) != string(ans.id) {
		return refuse(reasonMalformed, "the credential id in the authenticator data differs from the answer's")
	}
	if a.key, err = parseKey(a.AttData.CredentialPublicKey); err != nil {
		return err
	}
	if err := a.checkExtensions(extProtect); err != nil {
		return err
	}
	if out, ok := a.extensions[extProtect]; ok {
		if level, ok := out.(uint64); !ok || level < 1 || level > 3 {
			return refuse(reasonMalformed, "the output of extension credProtect is none that there is")
		}
	}
	return nil
}

// admit asks the metadata and the rules whether the key that the statement is
// about may be enrolled, and settles what its attestation is worth.
func (s *Service) admit(ctx context.Context, holder *tokens.KeyHolder, st *statement, n *tokens.NewFIDO) error {
	note := func(name, value string) {
		if value != "" {
			n.Detail = append(n.Detail, audit.Field{Name: name, Value: value})
		}
	}
	note("format", st.format)
	note("aaguid", tokens.FormatAAGUID(st.aaguid))
	attester := ""
	if st.aaguid == [16]byte{} {
		attester = st.keyID
		note("attester", attester)
	}
	facts, known, err := s.lookup(ctx, st.aaguid, attester)
	if errors.Is(err, tokens.ErrState) {
		return refuse(reasonModel, "%s", strings.TrimPrefix(err.Error(), tokens.ErrState.Error()+": "))
	} else if err != nil {
		return err
	}
	if known {
		note("model", facts.entry.Name)
		if err := st.suits(&facts); err != nil {
			return err
		}
	}
	var unvouched error
	if st.chain != nil {
		roots := facts.own
		if known {
			roots = facts.roots
		}
		switch err := st.vouch(roots, s.cfg.Now()); {
		case err == nil:
			note("root", st.trusted.Subject.String())
			n.Serial = st.serial
			if known { // otherwise the model is the authenticator's own word, which is not the token's
				n.Model = facts.entry.Name
			}
		case known:
			return err
		default:
			// Nobody vouches for the attestation key, so it proves what the credential's
			// own would (section 7.1, step 25, note). The rules say if that will do.
			st.kind, unvouched = attestedSelf, err
			note("unvouched", err.Error())
		}
	}
	note("attestation", st.kind)
	path := st.chain
	if st.trusted != nil {
		path = append(slices.Clone(st.chain), st.trusted)
	}
	if bad := concerns(facts.status, path); len(bad) > 0 {
		return refuse(reasonModel, "%s", reported(bad[0]))
	}
	rs, version, err := s.rules(ctx)
	if err != nil {
		return err
	}
	note("rules", strconv.FormatInt(version, 10))
	c := &candidate{aaguid: st.aaguid, model: facts.entry, attestation: st.kind, vouched: st.trusted != nil, synced: st.auth.synced}
	why := strings.Join(rs.judge(holder.Realm, holder.Groups, c, s.cfg.Synced), "; ")
	switch {
	case why != "" && unvouched != nil:
		return refuse(reasonAttestation, "%s; %s", unvouched, why)
	case why != "":
		return refuse(reasonModel, "%s", why)
	}
	return nil
}

// suits checks the statement against what the metadata says the model does. What
// contradicts it is not of this model, or not of this firmware.
func (st *statement) suits(f *modelFacts) error {
	m := f.entry
	not := func(format string, args ...any) error {
		return refuse(reasonAttestation, "by the FIDO metadata, %s "+format, append([]any{printable(m.Name)}, args...)...)
	}
	if st.format != "none" {
		if len(f.formats) > 0 && !slices.Contains(f.formats, st.format) || m.Protocol == "u2f" && st.format != "fido-u2f" {
			return not("does not attest in format %s", st.format)
		}
		if st.format == "packed" && st.chain != nil || st.format == "fido-u2f" {
			// Which of the three it is, only the metadata knows (sections 8.2 and 8.6).
			if kind := best(m.AttestationTypes); attestationRank(kind) == 2 {
				st.kind = kind
			}
		}
		if types := m.AttestationTypes; len(types) > 0 && !slices.Contains(types, map[string]string{
			attestedBasic: "basic_full", attestedAttCA: "attca", attestedAnonCA: "anonca", attestedSelf: "basic_surrogate",
		}[st.kind]) {
			return not("does not give attestation of type %s", st.kind)
		}
	}
	if len(f.algorithms) > 0 && !slices.Contains(f.algorithms, st.auth.key.algorithm) {
		return not("does not sign with algorithm %d", st.auth.key.algorithm)
	}
	if st.auth.synced && (m.MultiDevice == "" || m.MultiDevice == "unsupported") {
		return not("keeps its keys to itself, and this one may be copied (backup eligible)")
	}
	if st.auth.verified && len(m.Verification) > 0 && !slices.ContainsFunc(m.Verification, func(v string) bool { return v != "none" && v != "presence_internal" }) {
		return not("cannot verify its user, and this one says it did")
	}
	return nil
}
