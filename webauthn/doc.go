// Package webauthn is Watchword as a WebAuthn relying party (Web Authentication
// Level 3): ceremonies of registration and of assertion, what an attestation
// proved, and which models may be enrolled. It decides what an authenticator's
// answer is worth; package tokens decides about the user, the token and the
// counter, authorises, audits and commits.
package webauthn
