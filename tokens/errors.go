package tokens

import (
	"errors"
	"fmt"
)

// The errors that transports and callers tell apart, with errors.Is. What an
// error says beyond its kind is in words, for people.
var (
	ErrInvalid     = errors.New("invalid input")                                  // 400: the caller must change the request
	ErrUnknownKey  = errors.New("no or unknown API key")                          // 401
	ErrForbidden   = errors.New("not allowed")                                    // 403
	ErrNotFound    = errors.New("not found")                                      // 404
	ErrExists      = errors.New("exists already")                                 // 409
	ErrState       = errors.New("not possible in this state")                     // 409: the token's or user's state forbids it
	ErrWrongCode   = errors.New("the codes do not match")                         // 422: resynchronisation refused
	ErrTampered    = errors.New("the database row was altered outside Watchword") // 409; audited as tampering
	ErrUnavailable = errors.New("cannot answer now")                              // 503: HSM or database; try again later
	ErrOverloaded  = errors.New("too much at once")                               // 503: shed before any work was done

	// ErrMFARequired is an ErrForbidden that a younger proof of a token would lift.
	ErrMFARequired = fmt.Errorf("%w without a token that was proved a moment ago", ErrForbidden)

	// ErrConflict is a Store's word to the core that a version had moved; no
	// caller of Service ever sees it.
	ErrConflict = errors.New("changed by someone else meanwhile")
)

// ErrChainMoved is a Store's word to the core that an audit record does not
// continue its chain: a commit whose outcome was unknown had been made.
var ErrChainMoved = errors.New("the audit chain has another head")

// ErrSpent is a Store's word to the core that something that can be used once
// had been used before; no caller of Service ever sees it. It comes as
// *SpentError where it is a Spend.
var ErrSpent = errors.New("it was used before")
