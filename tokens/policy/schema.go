package policy

import (
	_ "embed"
	"slices"
	"strings"
	"sync"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

//go:embed schema.cedarschema
var schemaText string

// Schema is the Cedar schema that each policy is checked against, for people.
func Schema() string { return schemaText }

// The names of the entity types, as Cedar writes them.
const (
	namespace = "Watchword::"

	typeAction = cedar.EntityType(namespace + "Action")
	typeRole   = cedar.EntityType(namespace + "Role")
	typeGroup  = cedar.EntityType(namespace + "Group")

	typeInstallation = namespace + cedar.EntityType(Installation)
	typeRealm        = namespace + cedar.EntityType(Realm)
	typeUser         = namespace + cedar.EntityType(User)
	typeToken        = namespace + cedar.EntityType(Token)
)

// The id of the one Installation.
const thisInstallation = "this"

// kinds and types are in the order of the bits of a reach.
var (
	kinds = []Kind{KindAdmin, KindKey, KindClient, KindInvitation, KindSystem}
	types = []Type{Installation, Realm, User, Token}
)

// entity is the name of the kind's entity type; of a kind that there is not, its own.
func (k Kind) entity() cedar.EntityType {
	switch k {
	case KindAdmin:
		return namespace + cedar.EntityType(KindAdmin)
	case KindKey:
		return namespace + cedar.EntityType(KindKey)
	case KindClient:
		return namespace + cedar.EntityType(KindClient)
	case KindInvitation:
		return namespace + cedar.EntityType(KindInvitation)
	case KindSystem:
		return namespace + cedar.EntityType(KindSystem)
	}
	return cedar.EntityType(k)
}

// entity is the name of the type's entity type.
func (t Type) entity() cedar.EntityType {
	switch t {
	case Realm:
		return typeRealm
	case User:
		return typeUser
	case Token:
		return typeToken
	}
	return typeInstallation
}

func roleUID(r Role) cedar.EntityUID { return cedar.NewEntityUID(typeRole, cedar.String(r)) }

func actionUID(a Action) cedar.EntityUID { return cedar.NewEntityUID(typeAction, cedar.String(a)) }

// An actionRule is what the schema says of one action.
type actionRule struct {
	action  Action
	index   int   // its bit in an actionSet
	types   uint8 // what it can be done to
	parents []cedar.EntityUID
}

// A vocabulary is the schema, read.
type vocabulary struct {
	schema    *resolved.Schema
	validator *validate.Validator
	actions   map[Action]*actionRule
	ordered   []*actionRule        // by name
	members   map[string]actionSet // of each action and each group of actions, itself included if it can be done
	entities  cedar.EntityMap      // the actions, for evaluation
}

// An actionSet is a set of actions, by their index.
type actionSet [3]uint64

func (s *actionSet) add(i int)      { s[i>>6] |= 1 << (i & 63) }
func (s *actionSet) has(i int) bool { return s[i>>6]&(1<<(i&63)) != 0 }
func (s *actionSet) union(more actionSet) {
	for i := range s {
		s[i] |= more[i]
	}
}

// words is the vocabulary of the embedded schema. That it can be read, the tests see.
var words = sync.OnceValue(func() *vocabulary {
	var s schema.Schema
	s.SetFilename("schema.cedarschema")
	if err := s.UnmarshalCedar([]byte(schemaText)); err != nil {
		panic("policy: " + err.Error())
	}
	r, err := s.Resolve()
	if err != nil {
		panic("policy: " + err.Error())
	}
	v := &vocabulary{
		schema: r, validator: validate.New(r, validate.WithStrict()),
		actions: map[Action]*actionRule{}, members: map[string]actionSet{}, entities: cedar.EntityMap{},
	}
	for uid, a := range r.Actions {
		v.entities[uid] = a.Entity
		if a.AppliesTo == nil {
			continue
		}
		rule := &actionRule{action: Action(uid.ID)}
		for i, t := range types {
			if slices.Contains(a.AppliesTo.Resources, t.entity()) {
				rule.types |= 1 << i
			}
		}
		for p := range a.Entity.Parents.All() {
			rule.parents = append(rule.parents, p)
		}
		v.actions[rule.action] = rule
		v.ordered = append(v.ordered, rule)
	}
	slices.SortFunc(v.ordered, func(a, b *actionRule) int { return strings.Compare(string(a.action), string(b.action)) })
	for i, rule := range v.ordered {
		rule.index = i
		add := func(name string) {
			set := v.members[name]
			set.add(i)
			v.members[name] = set
		}
		add(string(rule.action))
		for _, p := range rule.parents { // groups are in no groups
			add(string(p.ID))
		}
	}
	return v
})

// bit is the place of a kind or type in a reach.
func bit[T comparable](list []T, of T) uint8 {
	for i, x := range list {
		if x == of {
			return 1 << i
		}
	}
	return 0
}
