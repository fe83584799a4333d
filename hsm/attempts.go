package hsm

import (
	"fmt"
	"sync"
	"time"
)

const (
	// WrongAttempts is how many RSA-1_5 ciphertexts may be wrong within
	// AttemptsIn. An import of good ones costs nothing; Bleichenbacher's attack
	// asks for thousands of wrong ones.
	WrongAttempts = 20
	AttemptsIn    = time.Hour
)

// Attempts limits how many RSA-1_5 ciphertexts can be tried that turn out to be
// wrong: WrongAttempts within AttemptsIn, for all who share it, in this process.
// Its zero value is ready for use.
type Attempts struct {
	// Now, if not nil, tells the time instead of time.Now.
	Now func() time.Time

	mu       sync.Mutex
	underway int
	wrong    []time.Time // not older than AttemptsIn, the oldest first
}

// Begin asks for one attempt. It fails with ErrTransportLimit, saying when there
// is another, if those that were wrong and those under way use up the limit.
// After each Begin that did not fail End must be called.
func (a *Attempts) Begin() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for len(a.wrong) > 0 && now.Sub(a.wrong[0]) >= AttemptsIn {
		a.wrong = a.wrong[1:]
	}
	if len(a.wrong)+a.underway < WrongAttempts {
		a.underway++
		return nil
	}
	if len(a.wrong) == 0 {
		return fmt.Errorf("%w: %d are being tried; try again when they are done", ErrTransportLimit, a.underway)
	}
	return fmt.Errorf("%w: %d within %v, which is how an attack on the key would look; the next one is tried after %s",
		ErrTransportLimit, len(a.wrong), AttemptsIn, a.wrong[0].Add(AttemptsIn).UTC().Format(time.RFC3339))
}

// End ends an attempt and says whether the ciphertext was wrong.
func (a *Attempts) End(wrong bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.underway--
	if wrong {
		a.wrong = append(a.wrong, a.now())
	}
}

func (a *Attempts) now() time.Time {
	if a.Now != nil {
		return a.Now()
	}
	return time.Now()
}
