// Package softkey is a FIDO authenticator in software: for tests, benchmarks
// and demonstrations. Its private keys lie in plain memory, so it protects
// nothing, and its AAGUID says what it is.
package softkey
