package tokens

import "time"

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
	Valid time.Duration `json:"-"`    // at most, and if nothing else is asked for
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
