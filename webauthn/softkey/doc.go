// Package softkey is a FIDO authenticator in software: for tests, benchmarks
// and demonstrations. Its private keys lie in plain memory, so it protects
// nothing, and its AAGUID, the letters "watchwordsoftkey", says what it is.
//
// A Key is used in one of three ways, or in all of them at once:
//
//	page's options -> Key.Register, Key.Assert -> page's response      the key and its browser, in JSON
//	CTAP2 command  -> Key.Command              -> status, CBOR         the key alone
//	libfido2       -> Plug, Key.ServeHID       -> CTAPHID reports      a key that is plugged in
//
// What a registration proves is up to Options: the model, the algorithm, one of
// WebAuthn's attestation formats under a Vendor's root, a serial number. What
// goes wrong is up to Faults: each is signed well, so that a verifier can find
// only the fault itself.
//
// What a Key keeps: resident credentials, up to its capacity; a PIN, as half a
// hash, and settings; the secret that opens the IDs of all other credentials,
// which hold their private keys themselves. So its memory is bounded whatever
// is asked of it. Nothing is written to disk: a Key ends with the process.
//
// Where it differs from a real key: unless Options say otherwise, there is no
// time limit on a reset after it was plugged in; nothing wipes its memory; with a
// serial number, Register tells it to any relying party that asks, while
// Command wants enterprise attestation to be enabled first, and then counts any
// relying party among those that the vendor named. It has no CTAP1 (U2F)
// commands: the format fido-u2f attests credentials made by CTAP2.
package softkey
