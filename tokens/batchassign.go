package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// maxAssigned is how many tokens one import hands out at most. All of it is one
// transaction, which keeps those waiting who want to log in.
const maxAssigned = 10_000

// person is somebody whom the records of an import name.
type person struct {
	name, key string
	why       string // they can get no token; empty if they can
	tokens    int    // that the import hands to them
}

// hand is a staged token and who is to get it.
type hand struct {
	token Token
	owner *person
}

// mayAssign authorises what an import that assigns does beside.
func (i *Import) mayAssign(ctx context.Context) error {
	e := audit.Event{Realm: i.in.Realm, Detail: []audit.Field{{Name: "file", Value: i.in.Name}}}
	if i.in.Assign {
		if err := i.s.authorise(ctx, i.p, policy.TokenAssign, &e); err != nil {
			return err
		}
		i.assigns = e.Policy
	}
	if i.in.Create {
		if err := i.s.authorise(ctx, i.p, policy.UserAdd, &e); err != nil {
			return err
		}
		i.creates = e.Policy
	}
	return nil
}

// hintOf is what is kept of whom a file names, where nothing is assigned:
// USER or REALM\USER, as text of up to 255 bytes.
func hintOf(user, realm string) string {
	if user == "" {
		return ""
	}
	if realm != "" {
		user = realm + `\` + user
	}
	return fileName(strings.ToValidUTF8(user, string(unicode.ReplacementChar)))
}

// owners finds who each entry names, and rejects those that cannot be assigned.
func (i *Import) owners(ctx context.Context, list []*entry) error {
	keys := make([]string, len(list))
	var refs []Ref
	for k, e := range list {
		if e.from.User == "" {
			continue
		}
		key, err := FoldName(e.from.User)
		if err == nil && e.from.UserRealm != "" {
			var realm string
			if realm, err = FoldName(e.from.UserRealm); err == nil && realm != i.in.Realm {
				err = fmt.Errorf("%w: the file names a user of realm %q, and this import goes into realm %q; import those records with --realm", ErrInvalid, realm, i.in.Realm)
			}
		}
		if err != nil {
			e.reject("its user: %s", reasonOf(err))
			continue
		}
		keys[k] = key
		if i.people[key] == nil {
			i.people[key] = &person{name: norm.NFC.String(e.from.User), key: key}
			refs = append(refs, Ref{Realm: i.in.Realm, User: key})
		}
	}
	if len(refs) > 0 {
		view, err := i.s.db.Load(ctx, refs)
		if err != nil {
			return unavailable(err)
		}
		for k, ref := range refs {
			who := i.people[ref.User]
			who.why = i.unfit(who, view.Subjects[k])
		}
	}
	rules, err := i.s.rulesOf(ctx, i.in.Realm)
	if err != nil {
		return err
	}
	for k, e := range list {
		if keys[k] == "" {
			continue
		}
		who := i.people[keys[k]]
		switch {
		case who.why != "":
			e.reject("%s", who.why)
		case who.tokens >= rules.MaxTokens:
			e.reject("the file has more than %d tokens for %s, the most a user can hold", rules.MaxTokens, who.name)
		default:
			who.tokens++
			i.named++
			e.owner = who
		}
	}
	if i.named > maxAssigned {
		return fmt.Errorf("%w: more than %d tokens to hand out in one import; split the file", ErrInvalid, maxAssigned)
	}
	return nil
}

// unfit says why a user can get no token by an import; empty if they can.
func (i *Import) unfit(who *person, sub *Subject) string {
	switch {
	case sub == nil && i.in.Create:
		return ""
	case sub == nil:
		return fmt.Sprintf("there is no user %q in realm %s; add the user first, or all whom the file names by --create-users", who.name, i.in.Realm)
	case sub.User.State != UserEnabled:
		return fmt.Sprintf("user %s is disabled", sub.User.Name)
	case !i.s.mayLend(i.p, sub.User.Realm, sub.User.Key):
		return fmt.Sprintf("user %s has a role; hand this one out by hand", sub.User.Name)
	case sub.counted() > 0:
		i := slices.IndexFunc(sub.Tokens, func(t Token) bool { return !t.passcode() })
		return fmt.Sprintf("user %s holds a token already (%s); hand this one out by hand", sub.User.Name, sub.Tokens[i].Serial)
	}
	return ""
}

// commit publishes the batch and what it hands out in one change.
func (i *Import) commit(ctx context.Context, b Batch, e audit.Event) error {
	for range conflicts {
		c := Change{Publish: []Batch{b}}
		events := []audit.Event{i.s.event(i.p, policy.ImportPublish, e)}
		if len(i.hands) > 0 {
			more, err := i.handOut(hsm.Bulk(ctx), &c)
			if err != nil {
				return err
			}
			events = append(events, more...)
		}
		err := i.s.ledger.commit(ctx, &c, events)
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("%w: the users are changed elsewhere all the time", ErrUnavailable)
}

// loadPage is how many users are read at once.
const loadPage = 500

// handOut binds the tokens to their owners as these are now, notes both in the
// batch, and answers what is to be audited. The change is conditional on every
// owner's version.
func (i *Import) handOut(ctx context.Context, c *Change) ([]audit.Event, error) {
	var people []*person
	for _, who := range i.people {
		if who.tokens > 0 {
			people = append(people, who)
		}
	}
	owners := make(map[*person]*User, len(people))
	var missing []*person
	for from := 0; from < len(people); from += loadPage {
		page := people[from:min(from+loadPage, len(people))]
		refs := make([]Ref, len(page))
		for k, who := range page {
			refs[k] = Ref{Realm: i.in.Realm, User: who.key}
		}
		view, err := i.s.db.Load(ctx, refs)
		if err != nil {
			return nil, unavailable(err)
		}
		for k, who := range page {
			sub := view.Subjects[k]
			if why := i.unfit(who, sub); why != "" {
				return nil, fmt.Errorf("%w: meanwhile %s", ErrState, why)
			}
			if sub == nil {
				missing = append(missing, who)
				continue
			}
			owners[who] = sub.User
			c.Standings = append(c.Standings, sub.touch())
		}
	}
	made, err := i.newcomers(ctx, missing)
	if err != nil {
		return nil, err
	}
	rules, err := i.s.rulesOf(ctx, i.in.Realm)
	if err != nil {
		return nil, err
	}
	for _, who := range people {
		if who.tokens > rules.MaxTokens {
			return nil, fmt.Errorf("%w: meanwhile the realm's rules allow no more than %d tokens, and the file has %d for %s", ErrState, rules.MaxTokens, who.tokens, who.name)
		}
	}
	batch := audit.Field{Name: "batch", Value: itoa(i.batch.ID)}
	events := make([]audit.Event, 0, len(made)+len(i.hands))
	for k, who := range missing {
		owners[who] = &made[k]
		events = append(events, i.s.event(i.p, policy.UserAdd, audit.Event{Realm: i.in.Realm, User: who.key, Policy: i.creates, Detail: []audit.Field{batch}}))
	}
	list := make([]Token, len(i.hands))
	var bare []*Token // whose owner has no PIN: all bound at once
	for k := range i.hands {
		owner := owners[i.hands[k].owner]
		list[k] = i.hands[k].token
		t := &list[k]
		t.State, t.OwnerID, t.Owner = rules.Activation.state(t), owner.ID, owner.Key
		if owner.HasPIN() {
			if err := i.s.bind(ctx, []*Token{t}, owner.PINMAC); err != nil {
				return nil, err
			}
		} else {
			bare = append(bare, t)
		}
		events = append(events, i.s.event(i.p, policy.TokenAssign, audit.Event{
			Realm: i.in.Realm, User: owner.Key, Serial: t.Serial, Policy: i.assigns,
			Detail: []audit.Field{batch, {Name: "from", Value: string(Imported)}, {Name: "to", Value: string(t.State)}},
		}))
	}
	for from := 0; from < len(bare); from += 1000 {
		if err := i.s.bind(ctx, bare[from:min(from+1000, len(bare))], nil); err != nil {
			return nil, err
		}
	}
	if err := i.s.db.Grant(ctx, i.batch.ID, made, list); errors.Is(err, ErrState) {
		return nil, errIdle
	} else if err != nil {
		return nil, unavailable(err)
	}
	return events, nil
}

// newcomers are the users that publishing makes.
func (i *Import) newcomers(ctx context.Context, people []*person) ([]User, error) {
	ids, err := i.s.db.Reserve(ctx, len(people))
	if err != nil {
		return nil, unavailable(err)
	}
	now := i.s.cfg.Now().UTC()
	list := make([]User, len(people))
	for k, who := range people {
		list[k] = User{ID: ids[k], Realm: i.in.Realm, Name: who.name, Key: who.key, State: UserEnabled, Created: now}
	}
	return list, nil
}
