package policy

// Applied is a policy that can concern a principal or a resource.
type Applied struct {
	ID          string   `json:"id"`
	Template    string   `json:"template,omitempty"` // that it is a link of
	BuiltIn     bool     `json:"built_in,omitempty"`
	Effect      string   `json:"effect"`                // permit or forbid
	Conditional bool     `json:"conditional,omitempty"` // it has conditions, which depend on more
	Actions     []string `json:"actions,omitempty"`     // those that it is about, sorted; empty: all
}

// Applying are the policies whose scope the principal and the resource are in, by id;
// nil stands for any. Of a principal, the roles must be filled, of a user or a token,
// the groups. Whether their conditions hold depends on the question.
func (s *Set) Applying(p *Principal, r *Resource) []Applied {
	const every = 1<<8 - 1
	v := words()
	kind, typ := uint8(every), uint8(every)
	if p != nil {
		kind = bit(kinds, p.Kind)
		if s.exempt(&Query{Principal: *p}) {
			s = s.builtin
		}
	}
	var on Resource
	if r != nil {
		on = *r
		on.settle(every)
		typ = bit(types, on.Type)
		if p != nil && p.Realm != "" && p.Realm != on.Realm {
			return nil
		}
	}
	var list []Applied
	for _, e := range s.entries {
		if p != nil && !e.who.holds(p, kind) || r != nil && !e.where.holds(&on, typ) {
			continue
		}
		a := Applied{ID: e.id, Template: e.template, BuiltIn: e.builtin, Effect: "permit", Conditional: !e.always}
		if e.forbid {
			a.Effect = "forbid"
		}
		all := true
		for _, rule := range v.ordered {
			if e.actions.has(rule.index) && rule.types&typ&e.where.is != 0 {
				a.Actions = append(a.Actions, string(rule.action))
			} else if rule.types&typ != 0 {
				all = false
			}
		}
		if len(a.Actions) == 0 { // none that can be done to it
			continue
		}
		if all {
			a.Actions = nil
		}
		list = append(list, a)
	}
	return list
}
