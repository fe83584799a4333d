// Package tokens is the domain core: users, tokens, RADIUS clients, API keys
// and import batches, and the decisions about them. Every use case authorises
// first and writes its audit record in the same transaction as its change, so
// that no transport can forget either.
//
// Decisions are pure functions of state, MACs and time (window.go, throttle.go,
// decide.go); Service gathers what they need and commits what they answer.
package tokens
