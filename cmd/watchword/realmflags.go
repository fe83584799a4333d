package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"watchword/api"
)

// ruleFlags are the rules of a realm, a flag each.
type ruleFlags struct {
	maxTokens, pinMin, pinMax, codes, uses int
	activation                             string
	sequences, change, recovery, temporary bool
	valid                                  time.Duration
}

func (f *ruleFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.IntVar(&f.maxTokens, "max-tokens", 0, "how many tokens a user may hold, passcodes apart: 1 to 64")
	flags.StringVar(&f.activation, "activation", "", "what makes a hardware token active: assign, or codes (two in a row)")
	flags.IntVar(&f.pinMin, "pin-min", 0, "how many characters a PIN has at least: 4 to 32")
	flags.IntVar(&f.pinMax, "pin-max", 0, "how many characters a PIN has at most")
	flags.BoolVar(&f.sequences, "pin-sequences", false, "allow PINs such as 1234, 8765, 1111 and abcd")
	flags.BoolVar(&f.change, "pin-change", false, "a PIN that somebody else has set must be changed at first use")
	flags.BoolVar(&f.recovery, "recovery", false, "allow recovery codes")
	flags.IntVar(&f.codes, "recovery-codes", 0, "how many are on a sheet: 1 to 32")
	flags.BoolVar(&f.temporary, "temporary", false, "allow temporary passcodes")
	flags.DurationVar(&f.valid, "temporary-valid", 0, "for how long one is good at most, in hours such as 8h")
	flags.IntVar(&f.uses, "temporary-uses", 0, "how often one is good at most: 1 to 100")
}

var ruleFlagNames = []string{
	"max-tokens", "activation", "pin-min", "pin-max", "pin-sequences", "pin-change", "recovery", "recovery-codes",
	"temporary", "temporary-valid", "temporary-uses",
}

// given says whether any of them is.
func (f *ruleFlags) given(cmd *cobra.Command) bool {
	for _, name := range ruleFlagNames {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// apply sets the rules that flags name. The server says which values cannot be.
func (f *ruleFlags) apply(cmd *cobra.Command, r *api.Rules) error {
	for name, set := range map[string]func(){
		"max-tokens":      func() { r.MaxTokens = f.maxTokens },
		"activation":      func() { r.Activation = api.RulesActivation(f.activation) },
		"pin-min":         func() { r.Pin.Min = f.pinMin },
		"pin-max":         func() { r.Pin.Max = f.pinMax },
		"pin-sequences":   func() { r.Pin.Sequences = f.sequences },
		"pin-change":      func() { r.Pin.Change = f.change },
		"recovery":        func() { r.Recovery.Allow = f.recovery },
		"recovery-codes":  func() { r.Recovery.Codes = f.codes },
		"temporary":       func() { r.Temporary.Allow = f.temporary },
		"temporary-valid": func() { r.Temporary.ValidHours = int(f.valid / time.Hour) },
		"temporary-uses":  func() { r.Temporary.Uses = f.uses },
	} {
		if cmd.Flags().Changed(name) {
			set()
		}
	}
	if cmd.Flags().Changed("temporary-valid") && (f.valid < time.Hour || f.valid%time.Hour != 0) {
		return errors.New("--temporary-valid is no number of hours such as 8h")
	}
	return nil
}
