package policy

import (
	"iter"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
)

// Decision is the answer to a Query.
type Decision struct {
	Allow    bool
	Reason   string   // why not: a sentence for the audit
	Policies []string // ids of those that decided, sorted; the list is shared: read it only
	MFA      bool     // it is only a younger proof of a token that lacks
	Faults   []string // what policies could not be evaluated, each "ID: why"
}

// Decide answers a query. Nothing is allowed but what a policy permits and none
// forbids; and where a policy cannot be evaluated, nothing is. Whatever the policies
// say, a principal of one realm does nothing in another.
//
// The installation's own policies are not asked about the server itself, so that it
// can start, nor about changing policies with a superuser's API key for all realms,
// so that none forbids its own removal.
func (s *Set) Decide(q *Query) Decision {
	if s.exempt(q) {
		s = s.builtin
	}
	d := s.decide(q)
	if d.Allow || q.Principal.Kind != KindAdmin || len(d.Faults) > 0 || q.Context.MFA && q.Context.MFAAge <= 0 {
		return d
	}
	young := *q
	young.Context.MFA, young.Context.MFAAge = true, 0
	if s.decide(&young).Allow {
		d.MFA = true
		d.Reason += "; it needs a token that was proved a moment ago"
	}
	return d
}

// exempt says whether only the built-in policies count.
func (s *Set) exempt(q *Query) bool {
	p := &q.Principal
	switch p.Kind {
	case KindSystem:
		return slices.Contains(p.Roles, Superuser)
	case KindKey:
		return p.Realm == "" && strings.HasPrefix(string(q.Action), "policy.") && slices.Contains(p.Roles, Superuser)
	}
	return false
}

// A question is a query with what is looked up of it once.
type question struct {
	query    *Query
	resource Resource // settled
	action   int      // its index
	kind     uint8    // the bit of the principal's kind
	typ      uint8    // and of the resource's type
}

func (s *Set) decide(query *Query) Decision {
	q := question{query: query, resource: query.Resource, kind: bit(kinds, query.Principal.Kind)}
	rule := words().actions[query.Action]
	switch p := &query.Principal; {
	case rule == nil:
		return Decision{Reason: "there is no such action"}
	case q.kind == 0:
		return Decision{Reason: "there is no such kind of principal"}
	case p.Realm != "" && query.Resource.Realm != p.Realm:
		if p.Kind == KindAdmin {
			return Decision{Reason: "the session is for another realm"}
		}
		return Decision{Reason: "the key is for another realm"}
	}
	q.resource.settle(rule.types)
	q.action, q.typ = rule.index, bit(types, q.resource.Type)
	var room [16]*entry
	return q.judge(s.index.matching(room[:0], &q))
}

// judge decides by the policies whose scope holds.
func (q *question) judge(list []*entry) Decision {
	var p, f [16]*entry
	permit, forbid := p[:0], f[:0]
	asked := list[:0] // those that Cedar must be asked about
	for _, e := range list {
		switch is := e.conditional(q); {
		case is == unsure:
			asked = append(asked, e)
		case is == fails:
		case e.forbid:
			forbid = append(forbid, e)
		default:
			permit = append(permit, e)
		}
	}
	if len(asked) == 0 {
		return decision(permit, forbid)
	}
	return q.ask(permit, forbid, asked)
}

// conditional is what the policy's conditions come to.
func (e *entry) conditional(q *question) truth {
	switch {
	case e.always:
		return holds
	case e.test == nil:
		return unsure
	}
	return e.test.holds(q)
}

// decision is what follows where every policy could be evaluated.
func decision(permit, forbid []*entry) Decision {
	switch {
	case len(forbid) > 0:
		d := Decision{Policies: names(forbid)}
		if d.Reason = forbids(d.Policies); len(permit) == 0 {
			d.Reason += ", and none permits it"
		}
		return d
	case len(permit) > 0:
		return Decision{Allow: true, Policies: names(permit)}
	}
	return Decision{Reason: "no policy permits it"}
}

func forbids(ids []string) string {
	if len(ids) == 1 {
		return "policy " + ids[0] + " forbids it"
	}
	return "policies " + strings.Join(ids, ", ") + " forbid it"
}

// names are the ids of policies, sorted.
func names(list []*entry) []string {
	if len(list) == 1 {
		return list[0].only
	}
	ids := make([]string, len(list))
	for i, e := range list {
		ids[i] = e.id
	}
	slices.Sort(ids)
	return ids
}

// candidates are the policies that Cedar evaluates for one question.
type candidates []*entry

// All are the policies with their ids, as cedar.Authorize wants them.
func (c candidates) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, e := range c {
			if !yield(cedar.PolicyID(e.id), e.conditions) {
				return
			}
		}
	}
}

// ask has Cedar evaluate the conditions of policies whose scope holds, beside those
// that are decided. For Cedar they are permits, all of them, so that it names each that
// holds.
func (q *question) ask(permit, forbid, pending []*entry) Decision {
	asked := slices.Clone(candidates(pending)) // the caller's stays on its stack
	query := *q.query
	query.Resource = q.resource
	var need needs
	for _, e := range asked {
		need.add(e.need)
	}
	w := newWorld(&query, need)
	_, diagnostic := cedar.Authorize(asked, w, w.request())
	permit, forbid = slices.Clone(permit), slices.Clone(forbid)
	for _, r := range diagnostic.Reasons {
		i := slices.IndexFunc(asked, func(e *entry) bool { return e.id == string(r.PolicyID) })
		if asked[i].forbid {
			forbid = append(forbid, asked[i])
		} else {
			permit = append(permit, asked[i])
		}
	}
	var faults, broken []string
	for _, e := range diagnostic.Errors {
		broken = append(broken, string(e.PolicyID))
		faults = append(faults, string(e.PolicyID)+": "+e.Message)
	}
	if len(broken) == 0 {
		return decision(permit, forbid)
	}
	slices.Sort(broken)
	slices.Sort(faults)
	d := Decision{Reason: "policy " + faults[0] + "; what cannot be evaluated denies", Faults: faults, Policies: broken}
	if len(forbid) > 0 {
		ids := names(forbid)
		d.Policies = append(slices.Clone(ids), broken...)
		d.Reason = forbids(ids) + ", and " + d.Reason
		slices.Sort(d.Policies)
	}
	return d
}
