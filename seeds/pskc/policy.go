package pskc

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// policy refuses a key that may not be used for what it would be used for
// here. RFC 6030, section 5: whoever does not understand a policy element must
// assume that the key may not be used.
func (r *Reader) policy(k element) error {
	p, err := k.one("Policy")
	if err != nil {
		return err
	}
	usages, otp := 0, false
	if p != nil {
		for _, rule := range p.kids {
			switch {
			case rule.is("StartDate", nsPSKC), rule.is("ExpiryDate", nsPSKC):
			case rule.is("KeyUsage", nsPSKC):
				usages++
				otp = otp || string(bytes.TrimSpace(rule.text)) == "OTP"
			case rule.is("PINPolicy", nsPSKC):
				if err := r.pinPolicy(rule); err != nil {
					return err
				}
			case rule.is("NumberOfTransactions", nsPSKC):
				return errors.New("its policy allows a limited number of uses, which cannot be enforced here")
			default:
				return fmt.Errorf("its policy has the rule %s, which is not understood, so the key may not be used", quoted(rule.name.Local))
			}
		}
		if err := r.valid(p, "the key"); err != nil {
			return err
		}
	}
	// The drafts have these outside of any Policy.
	if err := r.valid(k.own, "the key"); err != nil {
		return err
	}
	if k.common != nil {
		if err := r.valid(k.common, "the key"); err != nil {
			return err
		}
	}
	if pin, err := k.one("PINPolicy"); err != nil {
		return err
	} else if pin != nil {
		if err := r.pinPolicy(pin); err != nil {
			return err
		}
	}
	// A draft's Usage has an attribute for each use; without any it allows all.
	usage, err := k.one("Usage")
	if err != nil {
		return err
	}
	if usage != nil {
		for _, a := range usage.attrs {
			switch a.Value {
			case "true", "1":
				usages++
				otp = otp || a.Name.Local == "OTP" || a.Name.Local == "otp"
			case "false", "0":
				usages++
			}
		}
	}
	if usages > 0 && !otp {
		return errors.New("its policy does not allow the key to be used for one-time passwords")
	}
	return nil
}

// pinPolicy refuses a key whose PIN is not the device's own business.
func (r *Reader) pinPolicy(n *node) error {
	if mode := n.attr("PINUsageMode"); mode != "" && mode != "Local" {
		return fmt.Errorf("its policy wants a PIN checked by the server (PINUsageMode %s), which an import cannot arrange", quoted(mode))
	}
	if len(n.kids) > 0 {
		return errors.New("its policy has rules for the PIN that are not understood, so the key may not be used")
	}
	for _, a := range n.attrs {
		switch a.Name.Local {
		case "PINKeyId":
			r.pinOf(a.Value)
		case "PINUsageMode", "MaxFailedAttempts", "MinLength", "MaxLength", "PINEncoding",
			"PINPolicyId", "WrongPINTry", "WrongPINtry", "Encoding", "Format": // the last line: drafts
		default:
			if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
				return fmt.Errorf("its policy has the rule %s for the PIN, which is not understood, so the key may not be used", quoted(a.Name.Local))
			}
		}
	}
	return nil
}

// valid checks the validity period that n states: RFC 6030, section 5, wants a
// key used between its dates only, both included. A key whose period is over is
// let through where the options say so, and counted. An end that is still to come
// goes with the key.
func (r *Reader) valid(n *node, what string) error {
	if n == nil {
		return nil
	}
	start, err := n.time("StartDate", false)
	if err != nil {
		return err
	}
	end, err := n.time("ExpiryDate", true)
	if err != nil {
		return err
	}
	if end.IsZero() {
		if end, err = n.time("Expiry", true); err != nil {
			return err
		}
	}
	const day = "2006-01-02"
	now := r.vault.given.Now
	switch {
	case !end.IsZero() && now.After(end) && r.vault.given.AllowExpired:
		if !r.key.expired {
			r.key.expired = true
			if r.expired++; r.expired == 1 {
				r.firstExpired = fmt.Sprintf("serial %s, %s expired on %s", quoted(r.key.Serial), what, end.Format(day))
			}
		}
	case !end.IsZero() && now.After(end):
		return fmt.Errorf("%s expired on %s; --partial imports it all the same", what, end.Format(day))
	case !start.IsZero() && now.Before(start):
		return fmt.Errorf("%s may not be used before %s; import it then", what, start.Format(day))
	case !end.IsZero() && (r.key.Expires.IsZero() || end.Before(r.key.Expires)):
		r.key.Expires = end
	}
	return nil
}

// time reads a child's date and time; without a zone it is taken as UTC, and
// without a time as that day's first moment or, for an end, its last.
func (n *node) time(local string, end bool) (time.Time, error) {
	text, err := n.value(local)
	if text == "" || err != nil {
		return time.Time{}, err
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02Z07:00"} {
		if t, err := time.Parse(layout, text); err == nil {
			if end {
				t = t.AddDate(0, 0, 1).Add(-time.Nanosecond)
			}
			return t.UTC(), nil
		}
	}
	// The earliest drafts: of day and month nobody says which is which. The
	// earlier reading is the safe one for an end.
	if t, err := time.Parse("02/01/2006", text); end && local == "Expiry" {
		u, err2 := time.Parse("01/02/2006", text)
		switch {
		case err == nil && (err2 != nil || t.Before(u)):
			return t, nil
		case err2 == nil:
			return u, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s is not a date and time", local)
}
