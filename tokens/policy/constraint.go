package policy

import (
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// The scope of a policy, its three constraints, read once so that asking them needs
// no Cedar entity. What they answer is what Cedar does; a property test holds them
// together.

// How a constraint says it.
type relation uint8

const (
	relAny relation = iota
	relEq
	relIn
)

// A who is the constraint on the principal.
type who struct {
	is   uint8 // kinds that it can be
	rel  relation
	role Role   // relIn: a role, or
	kind uint8  // the kind of
	id   string // the one principal
	uid  cedar.EntityUID
}

// A where is the constraint on the resource.
type where struct {
	is    uint8 // types that it can be
	rel   relation
	place place
	uid   cedar.EntityUID
}

// A place is what an entity uid of a resource names, in parts.
type place struct {
	typ         Type // or group
	realm, name string
}

// group is what a place can be, and a resource cannot.
const group Type = "Group"

func readPlace(uid cedar.EntityUID) (place, bool) {
	switch uid.Type {
	case typeInstallation:
		return place{typ: Installation, name: thisInstallation}, uid.ID == thisInstallation
	case typeRealm:
		return place{typ: Realm, realm: string(uid.ID)}, true
	case typeGroup, typeUser, typeToken:
		realm, name, ok := parseID(string(uid.ID))
		return place{typ: Type(strings.TrimPrefix(string(uid.Type), namespace)), realm: realm, name: name}, ok
	}
	return place{}, false
}

const everyKind, everyType = 1<<5 - 1, 1<<4 - 1

func readWho(scope ast.IsPrincipalScopeNode) who {
	w := who{is: everyKind}
	switch s := scope.(type) {
	case ast.ScopeTypeEq:
		w.is, w.rel, w.uid = kindBit(s.Entity.Type), relEq, s.Entity
	case ast.ScopeTypeIn:
		w.rel, w.uid = relIn, s.Entity
	case ast.ScopeTypeIs:
		w.is = kindBit(s.Type)
	case ast.ScopeTypeIsIn:
		w.is, w.rel, w.uid = kindBit(s.Type), relIn, s.Entity
	}
	if w.uid.Type == typeRole {
		w.role = Role(w.uid.ID)
	} else {
		w.kind, w.id = kindBit(w.uid.Type), string(w.uid.ID)
	}
	return w
}

func readWhere(scope ast.IsResourceScopeNode) where {
	w := where{is: everyType}
	switch s := scope.(type) {
	case ast.ScopeTypeEq:
		w.is, w.rel, w.uid = typeBit(s.Entity.Type), relEq, s.Entity
	case ast.ScopeTypeIn:
		w.rel, w.uid = relIn, s.Entity
	case ast.ScopeTypeIs:
		w.is = typeBit(s.Type)
	case ast.ScopeTypeIsIn:
		w.is, w.rel, w.uid = typeBit(s.Type), relIn, s.Entity
	}
	if w.rel != relAny {
		var ok bool
		if w.place, ok = readPlace(w.uid); !ok {
			w.is = 0
		}
	}
	return w
}

// readActions are the actions of a scope, those of its groups among them.
func readActions(scope ast.IsActionScopeNode) actionSet {
	v := words()
	switch s := scope.(type) {
	case ast.ScopeTypeEq:
		var set actionSet
		if a := v.actions[Action(s.Entity.ID)]; a != nil && s.Entity.Type == typeAction {
			set.add(a.index)
		}
		return set
	case ast.ScopeTypeIn:
		return v.in(s.Entity)
	case ast.ScopeTypeInSet:
		var set actionSet
		for _, e := range s.Entities {
			set.union(v.in(e))
		}
		return set
	}
	var set actionSet
	for i := range v.ordered {
		set.add(i)
	}
	return set
}

func (v *vocabulary) in(uid cedar.EntityUID) actionSet {
	if uid.Type != typeAction {
		return actionSet{}
	}
	return v.members[string(uid.ID)]
}

// kindBit is none for a type that is not of the namespace: what it names is nobody.
func kindBit(t cedar.EntityType) uint8 {
	name, ours := strings.CutPrefix(string(t), namespace)
	if !ours {
		return 0
	}
	return bit(kinds, Kind(name))
}

func typeBit(t cedar.EntityType) uint8 {
	name, ours := strings.CutPrefix(string(t), namespace)
	if !ours {
		return 0
	}
	return bit(types, Type(name))
}

// holds says whether the principal, of the kind with that bit, is one of those meant.
func (w *who) holds(p *Principal, kind uint8) bool {
	if w.is&kind == 0 {
		return false
	}
	switch {
	case w.rel == relAny:
		return true
	case w.kind == 0:
		return w.rel == relIn && slices.Contains(p.Roles, w.role)
	}
	return w.kind == kind && w.id == p.ID
}

// holds says whether the resource, of the type with that bit, is one of those meant.
func (w *where) holds(r *Resource, typ uint8) bool {
	if w.is&typ == 0 {
		return false
	}
	if w.rel == relAny {
		return true
	}
	p := &w.place
	switch p.typ {
	case Installation:
		return w.rel == relIn || r.Type == Installation
	case Realm:
		return p.realm == r.Realm && (r.Type == Realm || w.rel == relIn && r.Type != Installation)
	case group:
		return w.rel == relIn && p.realm == r.Realm && r.User != "" && slices.Contains(r.Groups, p.name)
	case User:
		return p.realm == r.Realm && p.name == r.User && (r.Type == User || w.rel == relIn && r.Type == Token)
	case Token:
		return r.Type == Token && p.realm == r.Realm && p.name == r.Serial
	}
	return false
}
