// Package webauthn is Watchword as a WebAuthn relying party (Web Authentication
// Level 3): ceremonies of registration and of assertion, what an attestation
// proved, and which models may be enrolled. It decides what an authenticator's
// answer is worth; package tokens decides about the user, the token and the
// counter, authorises, audits and commits.
//
// No node keeps a ceremony. Its state travels with the caller (session.go), and
// its challenge is a MAC over that state under the HSM's key: an authenticator that
// signed the challenge signed the state. That an answer is accepted once is
// settled by the transaction that accepts it, which spends the challenge.
//
// An answer is read strictly, before go-webauthn sees any of it: JSON objects and
// CBOR maps with each name once and in its exact case, base64url in its one form,
// nothing behind the end, and attestation statements with just the members of
// their format. Origins are compared byte by byte. Pages in another origin's frame
// are refused, and so is any extension output that was not asked for.
//
// What an attestation proved is settled in this order: the statement's signature
// holds (attestation.go, telephone.go); the metadata knows the model, or does not
// (lookup); a chain leads to a root of the model's metadata entry, or, for models
// in no metadata, to an own root; the answer suits what the metadata says that the
// model does; no status report forbids the model; the rules of the user's realm
// and groups allow it (rules.go, where is written how they combine). A model that
// the metadata knows and whose chain does not hold is refused whatever the rules
// say. One that is unknown and that no own root vouches for has proven no more
// than self attestation does.
//
// A ceremony never uses the network.
package webauthn
