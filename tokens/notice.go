package tokens

import (
	"fmt"
	"strings"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// The types of notices that webhooks are sent.
const (
	NoticeTokenLost     = "token.lost"
	NoticeUserLocked    = "user.locked"
	NoticeTampering     = "tampering"
	NoticeImported      = "import.published"
	NoticePolicyChanged = "policy.changed"
	NoticeFIDOStatus    = "fido.status"
	NoticeRoleChanged   = "role.changed"
	NoticeKeyChanged    = "key.changed"
	NoticeSinkFailing   = "sink.failing"
)

// NoticeTypes are all of them, in order.
var NoticeTypes = []string{
	NoticeFIDOStatus, NoticeImported, NoticeKeyChanged, NoticePolicyChanged, NoticeRoleChanged,
	NoticeSinkFailing, NoticeTampering, NoticeTokenLost, NoticeUserLocked,
}

// NoticeTest is the type of the notice that a webhook is tested with.
const NoticeTest = "test"

// Notice is what a webhook is sent: that something happened which somebody may want
// to act on. It holds no secret.
type Notice struct {
	ID   string     `json:"id"` // the same whenever the same is told again
	Type string     `json:"type"`
	Time time.Time  `json:"time"` // when it happened
	Data NoticeData `json:"data"`
}

// NoticeData is the record of the audit that it comes from.
type NoticeData struct {
	Chain   int64         `json:"chain"`
	Seq     int64         `json:"seq"`
	Action  string        `json:"action"`
	Outcome string        `json:"outcome"`
	Realm   string        `json:"realm"`
	User    string        `json:"user"`
	Serial  string        `json:"serial"`
	Actor   string        `json:"actor"`
	Source  string        `json:"source"`
	Reason  string        `json:"reason"`
	Detail  []audit.Field `json:"detail"`
}

// maxNoticeDetail bounds the details of a notice, in bytes, so that it stays small.
const maxNoticeDetail = 4096

// Notice is what a webhook is sent of a record, if anything.
func (k *Sink) Notice(r *audit.Record) (Notice, bool) {
	kind := noticeType(r)
	if kind == "" || !k.Wants(kind) {
		return Notice{}, false
	}
	n := Notice{
		ID: fmt.Sprintf("msg_%s_%d_%d", k.ID, r.Chain, r.Seq), Type: kind, Time: r.Time.UTC(),
		Data: NoticeData{
			Chain: r.Chain, Seq: r.Seq, Action: r.Action, Outcome: r.Outcome, Realm: r.Realm, User: r.User, Serial: r.Serial,
			Actor: r.Actor, Source: r.Source, Reason: r.Reason, Detail: []audit.Field{},
		},
	}
	left := maxNoticeDetail
	for _, f := range r.Detail {
		if left -= len(f.Name) + len(f.Value); left < 0 {
			break
		}
		n.Data.Detail = append(n.Data.Detail, f)
	}
	return n, true
}

// fieldLocked is the detail of the failure with which a user was locked.
const fieldLocked = "locked"

// locking notes in the audit that a failure locks a user.
func locking(e *audit.Event, before, after *Standing) {
	if after.Locked && !before.Locked {
		e.Detail = append(e.Detail, audit.Field{Name: fieldLocked, Value: "true"})
	}
}

// noticeType is the type of the notice that comes of a record; empty if none does.
func noticeType(r *audit.Record) string {
	action := policy.Action(r.Action)
	switch {
	case r.Reason == string(ReasonTampered) || r.Reason == string(ReasonCloned), detail(r, fieldFirst) == string(ReasonTampered), action == policy.AuditVerify && detail(r, "intact") == "false",
		action == policy.ImportTransport, action == policy.ImportPGP:
		return NoticeTampering
	case detail(r, fieldLocked) == "true" && (action == policy.Verify || action == policy.TokenResync || action == policy.TokenActivate || action == policy.UserPINChange):
		return NoticeUserLocked
	case (action == policy.SinkFailing || action == policy.SinkStop) && r.Outcome == "error":
		return NoticeSinkFailing
	case r.Outcome != "ok":
		return ""
	}
	switch action {
	case policy.TokenLost:
		return NoticeTokenLost
	case policy.ImportPublish:
		return NoticeImported
	case policy.FIDOImport:
		if detail(r, "unchanged") == "" {
			return NoticeFIDOStatus
		}
		return ""
	case policy.FIDOShow:
		if r.Actor == string(KindSystem) && detail(r, "of") == "status report" { // that concerns a key
			return NoticeFIDOStatus
		}
		return ""
	case policy.RoleGrant, policy.RoleRevoke:
		return NoticeRoleChanged
	case policy.KeyAdd, policy.KeyDelete, policy.KeyRotate:
		return NoticeKeyChanged
	case policy.PolicyList, policy.PolicyShow, policy.PolicySimulate:
		return ""
	case policy.RealmRules, policy.FIDORules:
		return NoticePolicyChanged
	}
	if strings.HasPrefix(r.Action, "policy.") {
		return NoticePolicyChanged
	}
	return ""
}
