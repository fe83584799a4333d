package policy

// An index finds the policies that a question can concern. Each policy is in one
// place: under the resource or the principal that its scope names, where few others
// are, or else in the list of each action that it is about.
type index struct {
	resources  map[place][]*entry
	principals map[asker][]*entry
	actions    [][]*entry // by the action's index
}

// An asker is a principal, or with kind 0 a role.
type asker struct {
	kind uint8
	id   string
}

func newIndex(all []*entry) index {
	x := index{resources: map[place][]*entry{}, principals: map[asker][]*entry{}, actions: make([][]*entry, len(words().ordered))}
	places, askers := map[place]int{}, map[asker]int{}
	for _, e := range all {
		if e.where.rel != relAny {
			places[e.where.place]++
		}
		if e.who.rel != relAny {
			askers[e.who.asker()]++
		}
	}
	for _, e := range all {
		byPlace, byAsker := len(all)+1, len(all)+1
		if e.where.rel != relAny && e.where.place.typ != Installation {
			byPlace = places[e.where.place]
		}
		if e.who.rel != relAny && !e.builtin {
			byAsker = askers[e.who.asker()]
		}
		switch {
		case byPlace <= byAsker && byPlace <= len(all):
			x.resources[e.where.place] = append(x.resources[e.where.place], e)
		case byAsker <= len(all):
			x.principals[e.who.asker()] = append(x.principals[e.who.asker()], e)
		default:
			for i := range x.actions {
				if e.actions.has(i) {
					x.actions[i] = append(x.actions[i], e)
				}
			}
		}
	}
	return x
}

func (w *who) asker() asker {
	if w.kind == 0 {
		return asker{id: string(w.role)}
	}
	return asker{w.kind, w.id}
}

// matching appends the policies whose scope holds for the question.
func (x *index) matching(to []*entry, q *question) []*entry {
	to = q.holding(to, x.actions[q.action])
	if len(x.principals) > 0 {
		to = q.holding(to, x.principals[asker{q.kind, q.query.Principal.ID}])
		for i, r := range q.query.Principal.Roles {
			if first(q.query.Principal.Roles, i) {
				to = q.holding(to, x.principals[asker{id: string(r)}])
			}
		}
	}
	if len(x.resources) == 0 || q.resource.Type == Installation {
		return to
	}
	r := &q.resource
	to = q.holding(to, x.resources[place{typ: Realm, realm: r.Realm}])
	if r.User != "" {
		to = q.holding(to, x.resources[place{User, r.Realm, r.User}])
		for i, g := range r.Groups {
			if first(r.Groups, i) {
				to = q.holding(to, x.resources[place{group, r.Realm, g}])
			}
		}
	}
	if r.Type == Token {
		to = q.holding(to, x.resources[place{Token, r.Realm, r.Serial}])
	}
	return to
}

// first says whether list[i] is not in the list before i: a role or group that is
// named twice counts once.
func first[T comparable](list []T, i int) bool {
	for _, x := range list[:i] {
		if x == list[i] {
			return false
		}
	}
	return true
}

// holding appends those of list whose scope holds.
func (q *question) holding(to, list []*entry) []*entry {
	for _, e := range list {
		if e.actions.has(q.action) && e.who.holds(&q.query.Principal, q.kind) && e.where.holds(&q.resource, q.typ) {
			to = append(to, e)
		}
	}
	return to
}
