package policy

import (
	"math/bits"
	"net/netip"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
)

// ID is how a policy names what belongs to a realm: a user, a group, a token, and an
// Admin. It is REALM/NAME; a "/" or "%" in the name of the realm is written as %2F
// or %25, so that the first "/" always ends it.
func ID(realm, name string) string {
	if strings.ContainsAny(realm, "/%") {
		realm = strings.NewReplacer("%", "%25", "/", "%2F").Replace(realm)
	}
	return realm + "/" + name
}

// parseID is the other way. What ID never answers is nobody's: ok is false.
func parseID(id string) (realm, name string, ok bool) {
	realm, name, ok = strings.Cut(id, "/")
	if !ok {
		return "", "", false
	}
	if strings.Contains(realm, "%") {
		realm = strings.NewReplacer("%25", "%", "%2F", "/").Replace(realm)
		ok = ID(realm, name) == id
	}
	return realm, name, ok
}

// never is the age of a proof that there was none of: in seconds, and so old that no
// policy takes it for a young one, and no sum with it overflows.
const never = 10_000_000_000

// age is the age of a proof in whole seconds.
func (c *Context) age() int64 {
	switch {
	case !c.MFA:
		return never
	case c.MFAAge < 0: // the clock went back
		return 0
	}
	return int64(c.MFAAge / time.Second)
}

var weekdays = [...]cedar.String{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

var (
	noProof = cedar.NewRecord(cedar.RecordMap{"present": cedar.Boolean(false), "age": cedar.Long(never)})
	noMore  = cedar.NewRecord(nil)
)

// record is the context, as far as it is needed.
func (c *Context) record(need uint16) cedar.Record {
	if need == 0 {
		return noMore
	}
	m := make(cedar.RecordMap, bits.OnesCount16(need))
	if need&needNow != 0 {
		m["now"] = cedar.NewDatetime(c.Now)
	}
	if need&needHour != 0 {
		m["hour"] = cedar.Long(c.Now.Hour())
	}
	if need&needMinute != 0 {
		m["minute"] = cedar.Long(c.Now.Minute())
	}
	if need&needWeekday != 0 {
		m["weekday"] = weekdays[c.Now.Weekday()]
	}
	if need&needPath != 0 {
		m["path"] = cedar.String(c.Path)
	}
	if need&needMFA != 0 {
		m["mfa"] = noProof
		if c.MFA {
			m["mfa"] = cedar.NewRecord(cedar.RecordMap{"present": cedar.Boolean(true), "age": cedar.Long(c.age())})
		}
	}
	if need&needNAS != 0 && c.NAS != "" {
		m["nas"] = cedar.String(c.NAS)
	}
	if need&needSource != 0 && c.Source.IsValid() {
		m["source"] = addressOf(c.Source)
	}
	if need&needCaller != 0 && c.Caller.IsValid() {
		m["caller"] = addressOf(c.Caller)
	}
	return cedar.NewRecord(m)
}

// addressOf is one address as Cedar has it. An IPv4 address in IPv6 clothes is itself.
func addressOf(a netip.Addr) cedar.IPAddr {
	a = a.Unmap().WithZone("")
	return cedar.IPAddr(netip.PrefixFrom(a, a.BitLen()))
}

func (p *Principal) uid() cedar.EntityUID {
	return cedar.NewEntityUID(p.Kind.entity(), cedar.String(p.ID))
}

func (p *Principal) attributes() cedar.Record {
	m := cedar.RecordMap{"realm": cedar.String(p.Realm), "name": cedar.String(p.ID)}
	if p.Kind == KindAdmin {
		home, name := p.person()
		m["home"], m["name"] = cedar.String(home), cedar.String(name)
	}
	return cedar.NewRecord(m)
}

// person is the user that an Admin is.
func (p *Principal) person() (home, name string) {
	home, name, ok := parseID(p.ID)
	if !ok {
		return "", p.ID
	}
	return home, name
}

func (r *Resource) uid() cedar.EntityUID {
	switch r.Type {
	case Realm:
		return realmUID(r.Realm)
	case User:
		return userUID(r.Realm, r.User)
	case Token:
		return cedar.NewEntityUID(typeToken, cedar.String(ID(r.Realm, r.Serial)))
	}
	return installationUID
}

var installationUID = cedar.NewEntityUID(typeInstallation, thisInstallation)

func realmUID(realm string) cedar.EntityUID {
	return cedar.NewEntityUID(typeRealm, cedar.String(realm))
}

func userUID(realm, user string) cedar.EntityUID {
	return cedar.NewEntityUID(typeUser, cedar.String(ID(realm, user)))
}

func groupUID(realm, group string) cedar.EntityUID {
	return cedar.NewEntityUID(typeGroup, cedar.String(ID(realm, group)))
}

func (r *Resource) attributes() cedar.Record {
	m := cedar.RecordMap{"realm": cedar.String(r.Realm)}
	switch r.Type {
	case User:
		m["name"] = cedar.String(r.User)
	case Token:
		m["serial"] = cedar.String(r.Serial)
		if r.Kind == "" { // not known: a policy that looks at it denies
			break
		}
		m["type"], m["model"] = cedar.String(r.Kind), cedar.String(r.Model)
		m["attested"] = cedar.Boolean(r.Attested)
		m["unused_days"] = cedar.Long(r.unused())
		if r.AAGUID != "" {
			m["aaguid"] = cedar.String(r.AAGUID)
		}
	}
	return cedar.NewRecord(m)
}

// settle brings a resource to the narrowest that it can be: one that names what it
// is, and of a type that the action is about. So each question is one that the schema
// knows, and the policies checked against it know what they are asked.
func (r *Resource) settle(can uint8) {
	if r.Type == Token && (r.Serial == "" || can&bit(types, Token) == 0) {
		r.Type = User
	}
	if r.Type != Token {
		r.Serial = ""
		if r.Type != User || r.User == "" || can&bit(types, User) == 0 {
			r.User = ""
		}
	}
	switch {
	case r.Realm == "":
		*r = Resource{Type: Installation}
	case r.Type == Token || r.User != "":
	default:
		r.Type = Realm
	}
	if r.User == "" {
		r.Groups = nil
	}
}

// A world is the entities of one question, made when they are asked for.
type world struct {
	q           *Query
	need        needs
	principal   cedar.EntityUID
	resource    cedar.EntityUID
	asker, what *cedar.Entity
}

func newWorld(q *Query, need needs) *world {
	return &world{q: q, need: need, principal: q.Principal.uid(), resource: q.Resource.uid()}
}

func (w *world) request() cedar.Request {
	return cedar.Request{Principal: w.principal, Action: actionUID(w.q.Action), Resource: w.resource, Context: w.q.Context.record(w.need.context)}
}

// Get answers the entity of a uid, for Cedar.
func (w *world) Get(uid cedar.EntityUID) (cedar.Entity, bool) {
	switch uid {
	case w.principal:
		if w.asker == nil {
			w.asker = w.makePrincipal()
		}
		return *w.asker, true
	case w.resource:
		if w.what == nil {
			w.what = w.makeResource()
		}
		return *w.what, true
	}
	r := &w.q.Resource
	switch uid.Type {
	case typeAction:
		e, ok := words().entities[uid]
		return e, ok
	case typeInstallation:
		return cedar.Entity{UID: uid, Attributes: cedar.NewRecord(cedar.RecordMap{"realm": cedar.String("")})}, uid == installationUID
	case typeRealm:
		if r.Realm == "" || uid != realmUID(r.Realm) {
			return cedar.Entity{}, false
		}
		realm := Resource{Type: Realm, Realm: r.Realm}
		return cedar.Entity{UID: uid, Parents: cedar.NewEntityUIDSet(installationUID), Attributes: realm.attributes()}, true
	case typeGroup:
		for _, g := range r.Groups {
			if uid == groupUID(r.Realm, g) {
				return cedar.Entity{UID: uid, Parents: cedar.NewEntityUIDSet(realmUID(r.Realm))}, true
			}
		}
	case typeUser:
		if r.User == "" || r.Type != Token || uid != userUID(r.Realm, r.User) {
			return cedar.Entity{}, false
		}
		owner := Resource{Type: User, Realm: r.Realm, User: r.User, Groups: r.Groups}
		return cedar.Entity{UID: uid, Parents: owner.parents(), Attributes: owner.attributes()}, true
	}
	return cedar.Entity{}, false
}

func (w *world) makePrincipal() *cedar.Entity {
	p := &w.q.Principal
	e := &cedar.Entity{UID: w.principal}
	if w.need.parents {
		roles := make([]cedar.EntityUID, len(p.Roles))
		for i, r := range p.Roles {
			roles[i] = roleUID(r)
		}
		e.Parents = cedar.NewEntityUIDSet(roles...)
	}
	if w.need.principal {
		e.Attributes = p.attributes()
	}
	return e
}

func (w *world) makeResource() *cedar.Entity {
	r := &w.q.Resource
	e := &cedar.Entity{UID: w.resource}
	if w.need.parents {
		e.Parents = r.parents()
	}
	if w.need.resource {
		e.Attributes = r.attributes()
	}
	return e
}

// parents are the entities that the resource is in, without theirs.
func (r *Resource) parents() cedar.EntityUIDSet {
	switch r.Type {
	case Realm:
		return cedar.NewEntityUIDSet(installationUID)
	case User:
		in := []cedar.EntityUID{realmUID(r.Realm)}
		for _, g := range r.Groups {
			in = append(in, groupUID(r.Realm, g))
		}
		return cedar.NewEntityUIDSet(in...)
	case Token:
		if r.User != "" {
			return cedar.NewEntityUIDSet(userUID(r.Realm, r.User))
		}
		return cedar.NewEntityUIDSet(realmUID(r.Realm))
	}
	return cedar.EntityUIDSet{}
}
