package tokens

import (
	"fmt"
	"strconv"
	"strings"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// deeds are the acts as stories tell them: what was done, and what somebody tried to
// do. TOKEN and USER are put in.
var deeds = map[policy.Action]struct{ done, tried string }{
	policy.UserAdd:       {"User USER was added", "add user USER"},
	policy.UserEdit:      {"The profile of USER was changed", "change the profile of USER"},
	policy.UserEnable:    {"User USER was enabled", "enable user USER"},
	policy.UserDisable:   {"User USER was disabled", "disable user USER"},
	policy.UserUnlock:    {"User USER was unlocked", "unlock user USER"},
	policy.UserPIN:       {"The PIN of USER was changed", "change the PIN of USER"},
	policy.UserPINChange: {"USER chose a new PIN", "choose a new PIN for USER"},
	policy.UserGroups:    {"The groups of USER were changed", "change the groups of USER"},
	policy.TokenAssign:   {"Token TOKEN was given to USER", "give token TOKEN to USER"},
	policy.TokenUnassign: {"Token TOKEN was taken from USER", "take token TOKEN from USER"},
	policy.TokenResync:   {"Token TOKEN was resynchronised", "resynchronise token TOKEN"},
	policy.TokenSuspend:  {"Token TOKEN was suspended", "suspend token TOKEN"},
	policy.TokenResume:   {"Token TOKEN was turned on again", "turn token TOKEN on again"},
	policy.TokenLost:     {"Token TOKEN was marked lost", "mark token TOKEN lost"},
	policy.TokenRevoke:   {"Token TOKEN was revoked", "revoke token TOKEN"},
	policy.TokenEnrol:    {"Software token TOKEN was made for USER", "make a software token for USER"},
	policy.TokenConfirm:  {"Token TOKEN was activated by its first code", "activate token TOKEN"},
	policy.TokenActivate: {"Token TOKEN was activated by two codes", "activate token TOKEN"},
	policy.TokenExpire:   {"The expiry of token TOKEN was changed", "change the expiry of token TOKEN"},
	policy.TokenNote:     {"Token TOKEN was noted on", "note on token TOKEN"},
	policy.TokenReplace:  {"Token TOKEN was replaced", "replace token TOKEN"},
	policy.KeyStock:      {"FIDO key TOKEN was enrolled as stock", "enrol a FIDO key as stock"},
	policy.KeyEnrol:      {"FIDO key TOKEN was enrolled for USER", "enrol a FIDO key for USER"},
	policy.InviteAdd:     {"USER was invited to enrol a token", "invite USER to enrol a token"},
	policy.InviteDelete:  {"An invitation of USER was withdrawn", "withdraw an invitation of USER"},
	policy.RecoveryAdd:   {"Recovery codes were made for USER (sheet TOKEN)", "make recovery codes for USER"},
	policy.TemporaryAdd:  {"A temporary passcode was made for USER (TOKEN)", "make a temporary passcode for USER"},
}

// sentence tells one record.
func (s *Service) sentence(r *audit.Record) string {
	if r.Action == string(policy.Verify) {
		return s.sayVerify(r)
	}
	token, user := r.Serial, r.User
	if token == "" {
		token = "(none)"
	}
	if user == "" {
		user = "its owner"
	}
	deed, known := deeds[policy.Action(r.Action)]
	if !known {
		deed.done, deed.tried = "There was "+r.Action, "do "+r.Action
	}
	say := strings.NewReplacer("TOKEN", token, "USER", user).Replace
	who := s.who(r.Actor)
	var text string
	switch {
	case r.Outcome == "ok" && r.Reason == string(ReasonUnchanged):
		return capital(who) + " asked to " + say(deed.tried) + "; it was so already."
	case r.Outcome == "ok":
		text = say(deed.done) + " by " + who
		if policy.Action(r.Action) == policy.TokenActivate && r.Actor == string(KindSystem) {
			text = say("Key TOKEN was turned on: USER signed in with it for the first time")
		}
		if policy.Action(r.Action) == policy.UserPINChange {
			text = say(deed.done)
		}
		text += particulars(r) + "."
		if Reason(r.Reason) == ReasonTampered {
			text += " Its row in the database had been altered outside Watchword."
		}
	case r.Outcome == "denied":
		return capital(who) + " tried to " + say(deed.tried) + ", and was not allowed to."
	default:
		text = capital(who) + " tried to " + say(deed.tried) + ": " + refused(r) + "."
	}
	if why := detail(r, "reason"); why != "" {
		text += " The reason given: " + quoted(why) + "."
	}
	if why := detail(r, fieldWhy); why != "" && r.Outcome != "ok" {
		text += " It says: " + quoted(why) + "."
	}
	return text
}

// particulars are what an act's details add to its sentence.
func particulars(r *audit.Record) string {
	from, to := detail(r, "from"), detail(r, "to")
	switch policy.Action(r.Action) {
	case policy.TokenAssign:
		if old := detail(r, "replaces"); old != "" {
			return ", in the place of " + old + waits(to)
		}
		if batch := detail(r, "batch"); batch != "" {
			return ", as import " + batch + " said" + waits(to)
		}
		return waits(to)
	case policy.TokenReplace:
		if by := detail(r, fieldBy); by != "" {
			return ", with " + by
		}
	case policy.TokenSuspend, policy.TokenLost, policy.TokenRevoke, policy.TokenResume:
		if from != "" && from != string(Active) {
			return "; it had been " + from
		}
	case policy.TokenExpire, policy.UserGroups:
		return fmt.Sprintf(", from %s to %s", orNone(from), orNone(to))
	case policy.TokenResync, policy.TokenActivate:
		if drift := detail(r, "drift"); drift != "" && drift != "0" {
			if drift == "1" || drift == "-1" {
				return "; its clock is off by " + drift + " time step"
			}
			return "; its clock is off by " + drift + " time steps"
		}
	case policy.UserPIN:
		if change := detail(r, "pin"); change != "" {
			return " (" + change + ")"
		}
	case policy.TokenNote:
		var parts []string
		for _, p := range [][2]string{{"note", "note "}, {"tags_added", "tags added "}, {"tags_dropped", "tags taken off "}} {
			if v := detail(r, p[0]); v != "" {
				parts = append(parts, p[1]+quoted(v))
			}
		}
		if len(parts) > 0 {
			return ": " + strings.Join(parts, ", ")
		}
	case policy.RecoveryAdd:
		if n := detail(r, "codes"); n != "" {
			return ": " + n + " codes"
		}
	case policy.TemporaryAdd:
		if uses, until := detail(r, "uses"), detail(r, "expires"); uses != "" {
			if n, err := strconv.Atoi(uses); err == nil {
				uses = count(n, "use")
			}
			return ": good for " + uses + ", until " + orNone(until)
		}
	case policy.UserAdd:
		if batch := detail(r, "batch"); batch != "" {
			return ", as import " + batch + " said"
		}
	}
	return ""
}

// waits says that a token which was given waits for its first codes.
func waits(state string) string {
	if state == string(Pending) {
		return "; it waits for two codes of it, or, if it is a key, for its owner to sign in with it"
	}
	return ""
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// refused is why an act was refused.
func refused(r *audit.Record) string {
	switch r.Reason {
	case "not_found":
		return "there is none"
	case "exists":
		return "there is one already"
	case "state":
		return "refused, for its state did not allow it"
	case string(ReasonRule):
		if rule := detail(r, fieldRule); rule != "" {
			return "refused, for the realm's rule " + rule + " did not allow it"
		}
	case "invalid":
		return "refused, for what was asked was not valid"
	case refusal(ErrWrongCode):
		return "refused, for the codes did not match"
	case string(ReasonThrottled):
		return "refused, after too many failures"
	case string(ReasonTampered):
		return "refused, for the row in the database was altered outside Watchword"
	case string(ReasonReplay):
		return "refused, for it was used before"
	}
	if known, ok := explanations[Reason(r.Reason)]; ok {
		return "refused. " + strings.TrimSuffix(known.words, ".")
	}
	return "refused"
}

// sayVerify tells one login.
func (s *Service) sayVerify(r *audit.Record) string {
	through := ""
	if r.Actor != "" {
		through = " through " + s.who(r.Actor)
	}
	switch r.Outcome {
	case "accept":
		if n := detail(r, fieldNumber); n != "" {
			return fmt.Sprintf("%s logged in%s with passcode number %s of %s.", nameOr(r.User, "Somebody"), through, n, r.Serial)
		}
		with := fmt.Sprintf("%s logged in%s with token %s", nameOr(r.User, "Somebody"), through, r.Serial)
		if twoCodes(r) {
			return with + ", by two codes in a row, which resynchronised it."
		}
		return with + "."
	case "challenge":
		return "A login" + through + " ended in a question. " + explain(*r).Words
	case "error":
		return "A login" + through + " could not be decided: the HSM or the database did not answer."
	}
	words := explain(*r).Words
	if words == "" {
		words = "The reason: " + strings.ReplaceAll(r.Reason, "_", " ") + "."
	}
	with := ""
	if r.Serial != "" {
		with = " with token " + r.Serial
	}
	return "A login" + through + with + " was refused. " + words
}

// who names an actor for people: an API key by its name, if that is known.
func (s *Service) who(actor string) string {
	kind, id, _ := strings.Cut(actor, ":")
	switch PrincipalKind(kind) {
	case KindKey:
		if k := s.reg.Load().keys[id]; k != nil && k.Name != "" {
			return "the API key " + quoted(k.Name)
		}
		return "the API key " + id
	case KindClient:
		return "the RADIUS client " + id
	case KindInvitation:
		return "whoever was invited"
	case KindSystem:
		return "the server"
	}
	return nameOr(actor, "nobody")
}

func nameOr(name, other string) string {
	if name == "" {
		return other
	}
	return name
}

// quoted is a text of somebody's in a sentence, on one line.
func quoted(text string) string {
	return `"` + strings.Join(strings.Fields(text), " ") + `"`
}

func capital(text string) string {
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}
