package policy

import (
	"math"

	"github.com/cedar-policy/cedar-go"
)

// An attribute is what a question says, as a test looks at it.
type attribute uint8

const (
	written attribute = iota // it is not the question that says it: the policy does

	attrWeekday
	attrPath
	attrNAS
	attrPrincipalRealm
	attrPrincipalName
	attrPrincipalHome
	attrResourceRealm
	attrName
	attrSerial
	attrType
	attrModel
	attrAAGUID

	attrHour
	attrMinute
	attrAge
	attrUnused
	attrNow // in milliseconds

	attrSource
	attrCaller
)

// attributes are the attributes by their names. What a proof of a token says of itself
// is in the context, as mfa.
var attributes = map[[2]cedar.String]attribute{
	{"context", "weekday"}: attrWeekday, {"context", "path"}: attrPath, {"context", "nas"}: attrNAS,
	{"principal", "realm"}: attrPrincipalRealm, {"principal", "name"}: attrPrincipalName, {"principal", "home"}: attrPrincipalHome,
	{"resource", "realm"}: attrResourceRealm, {"resource", "name"}: attrName, {"resource", "serial"}: attrSerial,
	{"resource", "type"}: attrType, {"resource", "model"}: attrModel, {"resource", "aaguid"}: attrAAGUID,
	{"context", "hour"}: attrHour, {"context", "minute"}: attrMinute, {"mfa", "age"}: attrAge, {"resource", "unused_days"}: attrUnused,
	{"context", "now"}: attrNow, {"context", "source"}: attrSource, {"context", "caller"}: attrCaller,
}

// An operand is what a test compares: something of a question, or what is written.
type operand struct {
	attribute attribute
	text      string
	number    int64
	ip        cedar.IPAddr
}

// string is the operand's text, if it is there.
func (o *operand) string(q *question) (string, bool) {
	p, r, c := &q.query.Principal, &q.resource, &q.query.Context
	switch o.attribute {
	case written:
		return o.text, true
	case attrWeekday:
		return string(weekdays[c.Now.Weekday()]), true
	case attrPath:
		return c.Path, true
	case attrNAS:
		return c.NAS, c.NAS != ""
	case attrPrincipalRealm:
		return p.Realm, true
	case attrPrincipalName:
		if p.Kind != KindAdmin {
			return p.ID, true
		}
		_, name := p.person()
		return name, true
	case attrPrincipalHome:
		home, _ := p.person()
		return home, p.Kind == KindAdmin
	case attrResourceRealm:
		return r.Realm, true
	case attrName:
		return r.User, r.Type == User
	case attrSerial:
		return r.Serial, r.Type == Token
	case attrType:
		return r.Kind, r.known()
	case attrModel:
		return r.Model, r.known()
	case attrAAGUID:
		return r.AAGUID, r.known() && r.AAGUID != ""
	}
	return "", false
}

// int64 is the operand's number, if it is there.
func (o *operand) int64(q *question) (int64, bool) {
	c := &q.query.Context
	switch o.attribute {
	case written:
		return o.number, true
	case attrHour:
		return int64(c.Now.Hour()), true
	case attrMinute:
		return int64(c.Now.Minute()), true
	case attrAge:
		return c.age(), true
	case attrUnused:
		return q.resource.unused(), q.resource.known()
	case attrNow:
		return cedar.NewDatetime(c.Now).Milliseconds(), true
	}
	return 0, false
}

// address is the operand's address or range of addresses, if it is there.
func (o *operand) address(q *question) (cedar.IPAddr, bool) {
	c := &q.query.Context
	switch o.attribute {
	case written:
		return o.ip, true
	case attrSource:
		return addressOf(c.Source), c.Source.IsValid()
	case attrCaller:
		return addressOf(c.Caller), c.Caller.IsValid()
	}
	return cedar.IPAddr{}, false
}

// known says whether a token's attributes are known.
func (r *Resource) known() bool { return r.Type == Token && r.Kind != "" }

// unused is the number of days as policies see it.
func (r *Resource) unused() int64 { return min(max(r.Unused, 0), math.MaxInt32) }
