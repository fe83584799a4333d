package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"watchword/tokens/audit"
)

// Rules are what a realm asks of its users and their tokens.
type Rules struct {
	MaxTokens  int            `json:"max_tokens"` // that a user may hold at once, passcodes apart: 1 to 64
	Activation Activation     `json:"activation"`
	PIN        PINRules       `json:"pin"`
	Recovery   RecoveryRules  `json:"recovery"`
	Temporary  TemporaryRules `json:"temporary"`
}

// Activation is what makes a hardware token active. A software token always waits
// for two codes.
type Activation string

// The ways to become active.
const (
	ActivateAtOnce Activation = "assign" // assigning does it
	ActivateByCode Activation = "codes"  // its owner shows two consecutive codes; until then it is pending
)

// PINRules say what may be a PIN.
type PINRules struct {
	Min       int  `json:"min"`       // characters, 4 to 32
	Max       int  `json:"max"`       // characters, Min to 32
	Sequences bool `json:"sequences"` // PINs such as 1234, 8765, 1111 and abcd are allowed
	Change    bool `json:"change"`    // a PIN that somebody else has set must be changed at first use
}

// RecoveryRules say what recovery sheets there are.
type RecoveryRules struct {
	Allow bool `json:"allow"`
	Codes int  `json:"codes"` // on a sheet: 1 to 32
}

// TemporaryRules say what temporary passcodes there are.
type TemporaryRules struct {
	Allow bool          `json:"allow"`
	Valid time.Duration `json:"-"`    // at most, and if nothing else is asked for: 1 hour to 30 days, in whole hours; valid_hours in JSON
	Uses  int           `json:"uses"` // at most, and if nothing else is asked for: 1 to 100
}

// DefaultRules are those of a realm for which nothing else was said.
func DefaultRules() Rules {
	return Rules{
		MaxTokens:  MaxTokensPerUser,
		Activation: ActivateAtOnce,
		PIN:        PINRules{Min: minPIN, Max: maxPIN},
		Recovery:   RecoveryRules{Allow: true, Codes: 10},
		Temporary:  TemporaryRules{Valid: 24 * time.Hour, Uses: 5},
	}
}

// The bounds of rules.
const (
	mostTokens   = 64
	mostRecovery = 32
	mostUses     = 100
	longestValid = 30 * 24 * time.Hour
)

// temporaryRules is TemporaryRules in JSON.
type temporaryRules struct {
	Allow bool  `json:"allow"`
	Hours int64 `json:"valid_hours"`
	Uses  int   `json:"uses"`
}

// MarshalJSON writes Valid as valid_hours.
func (t TemporaryRules) MarshalJSON() ([]byte, error) {
	return json.Marshal(temporaryRules{Allow: t.Allow, Hours: int64(t.Valid / time.Hour), Uses: t.Uses})
}

// UnmarshalJSON reads what MarshalJSON wrote. What is left out stays as it is;
// members that there are not are refused.
func (t *TemporaryRules) UnmarshalJSON(data []byte) error {
	in := temporaryRules{Allow: t.Allow, Hours: int64(t.Valid / time.Hour), Uses: t.Uses}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return err
	}
	if in.Hours < 0 || in.Hours > int64(longestValid/time.Hour) { // and so it does not overflow
		return fmt.Errorf("%w: temporary.valid_hours is %d; 1 to %d are possible", ErrInvalid, in.Hours, longestValid/time.Hour)
	}
	*t = TemporaryRules{Allow: in.Allow, Valid: time.Duration(in.Hours) * time.Hour, Uses: in.Uses}
	return nil
}

// Check says what is wrong with rules, by ErrInvalid, or nil.
func (r *Rules) Check() error { return r.check() }

// check says what is wrong with rules, or nil.
func (r *Rules) check() error {
	between := func(name string, n, least, most int) error {
		if n < least || n > most {
			return fmt.Errorf("%w: %s is %d; %d to %d are possible", ErrInvalid, name, n, least, most)
		}
		return nil
	}
	for _, err := range []error{
		between("max_tokens", r.MaxTokens, 1, mostTokens),
		between("pin.min", r.PIN.Min, minPIN, maxPIN),
		between("pin.max", r.PIN.Max, r.PIN.Min, maxPIN),
		between("recovery.codes", r.Recovery.Codes, 1, mostRecovery),
		between("temporary.uses", r.Temporary.Uses, 1, mostUses),
	} {
		if err != nil {
			return err
		}
	}
	if v := r.Temporary.Valid; v < time.Hour || v > longestValid || v%time.Hour != 0 {
		return fmt.Errorf("%w: temporary.valid_hours is %g; whole hours from 1 to %d are possible", ErrInvalid, v.Hours(), longestValid/time.Hour)
	}
	if r.Activation != ActivateAtOnce && r.Activation != ActivateByCode {
		return fmt.Errorf("%w: activation %q; it is %s or %s", ErrInvalid, r.Activation, ActivateAtOnce, ActivateByCode)
	}
	return nil
}

// ruled is an error of an act that a realm's rule refuses.
type ruled struct {
	error
	rule string // as settings names it
}

func (r *ruled) Unwrap() error { return r.error }

// fieldRule names the detail that says by which rule an act was refused.
const fieldRule = "rule"

// rulesBroken is what the audit says besides of a refusal: the rule, if it was one.
func rulesBroken(err error) []audit.Field {
	var r *ruled
	if !errors.As(err, &r) {
		return nil
	}
	return []audit.Field{{Name: fieldRule, Value: r.rule}}
}

// settings are the rules one by one, as the audit names them.
func (r *Rules) settings() []audit.Field {
	text := func(name string, v any) audit.Field { return audit.Field{Name: name, Value: fmt.Sprint(v)} }
	return []audit.Field{
		text("max_tokens", r.MaxTokens), text("activation", r.Activation),
		text("pin.min", r.PIN.Min), text("pin.max", r.PIN.Max), text("pin.sequences", r.PIN.Sequences), text("pin.change", r.PIN.Change),
		text("recovery.allow", r.Recovery.Allow), text("recovery.codes", r.Recovery.Codes),
		text("temporary.allow", r.Temporary.Allow), text("temporary.valid_hours", int64(r.Temporary.Valid/time.Hour)), text("temporary.uses", r.Temporary.Uses),
	}
}

// changes says what is other in next, for the audit: "8 -> 12".
func (r *Rules) changes(next *Rules) []audit.Field {
	var list []audit.Field
	after := next.settings()
	for i, was := range r.settings() {
		if was.Value != after[i].Value {
			list = append(list, audit.Field{Name: was.Name, Value: was.Value + " -> " + after[i].Value})
		}
	}
	return list
}
