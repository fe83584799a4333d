package main

import (
	"watchword/api"
	"watchword/tokens"
	"watchword/webauthn"
)

// What stands in the files of 'watchword apply', a kind of document each. docs/as-code.md
// is the manual.

// The kinds, in the order in which they are applied and exported.
const (
	kindRealm    = "Realm"
	kindClient   = "Client"
	kindPolicies = "Policies"
	kindRole     = "Role"
	kindFIDO     = "FIDORules"
	kindRoots    = "FIDORoots"
	kindSink     = "Sink"
)

var everyKind = []string{kindRealm, kindClient, kindPolicies, kindRole, kindFIDO, kindRoots, kindSink}

// realmForm are a realm's own rules; name "*": those of all realms without. What is
// left out has its default.
type realmForm struct {
	Kind  string    `json:"kind"`
	Name  string    `json:"name"`
	Rules api.Rules `json:"rules"`
}

// clientForm is a RADIUS client. Its secret is the only line of a file beside this one;
// without, the client has its secret already.
type clientForm struct {
	Kind       string            `json:"kind"`
	Name       string            `json:"name"`
	Address    string            `json:"address"` // or a prefix
	Realm      string            `json:"realm"`   // default: default
	RequireMA  bool              `json:"require_message_authenticator"`
	ProxyState bool              `json:"allow_unsigned_proxy_state"`
	Methods    []string          `json:"methods"`   // default: [pap]
	NameRule   string            `json:"name_rule"` // default: plain
	Dialogues  []string          `json:"dialogues"`
	Joined     []string          `json:"joined"`
	Rate       int               `json:"rate"` // default: 0, no limit
	Replies    []replyForm       `json:"replies"`
	Messages   map[string]string `json:"messages"`
	SecretFile string            `json:"secret_file"`
}

// replyForm are attributes of accepts; without a group, for everybody.
type replyForm struct {
	Group      string          `json:"group"`
	Attributes []attributeForm `json:"attributes"`
}

type attributeForm struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// roleForm says which people have a role.
type roleForm struct {
	Kind   string       `json:"kind"`
	Role   string       `json:"role"`
	People []personForm `json:"people"`
}

type personForm struct {
	User  string `json:"user"`
	Realm string `json:"realm"` // that the user is in; default: default
	In    string `json:"in"`    // where the role counts; default: the user's realm; "*": in all
}

// policiesForm are policies, templates and links; *.cedar files hold policies and
// templates, too.
type policiesForm struct {
	Kind      string       `json:"kind"`
	Policies  []policyForm `json:"policies"`
	Templates []policyForm `json:"templates"`
	Links     []linkForm   `json:"links"`
}

type policyForm struct {
	ID   string `json:"id"`
	Note string `json:"note"`
	Text string `json:"text"`
}

type linkForm struct {
	ID        string `json:"id"`
	Template  string `json:"template"`
	Principal string `json:"principal"`
	Resource  string `json:"resource"`
}

// fidoForm are the rules for FIDO keys, as 'watchword fido rules' has them.
type fidoForm struct {
	Kind    string                         `json:"kind"`
	Default *webauthn.Rules                `json:"default"`
	Realms  map[string]webauthn.RealmRules `json:"realms"`
}

// defaultRealmForm is a realm before anything was read.
func defaultRealmForm() realmForm {
	d := tokens.DefaultRules()
	return realmForm{Rules: api.Rules{
		MaxTokens: d.MaxTokens, Activation: api.RulesActivation(d.Activation),
		Pin:       api.PinRules{Min: d.PIN.Min, Max: d.PIN.Max, Sequences: d.PIN.Sequences, Change: d.PIN.Change},
		Recovery:  api.RecoveryRules{Allow: d.Recovery.Allow, Codes: d.Recovery.Codes},
		Temporary: api.TemporaryRules{Allow: d.Temporary.Allow, ValidHours: int(d.Temporary.Valid.Hours()), Uses: d.Temporary.Uses},
	}}
}

func defaultClientForm() clientForm {
	return clientForm{Realm: tokens.DefaultRealm, RequireMA: true, Methods: []string{string(tokens.MethodPAP)}, NameRule: string(tokens.NamePlain)}
}
