package hsm

import "context"

// DecryptJob asks for one block to be decrypted under one sealed AES-128 key.
type DecryptJob struct {
	Key   *Sealed  // its Hash is AES128
	Block [16]byte // as it was typed

	Plain [16]byte // set by Decrypt; zeros with an Err
	Err   error    // set by Decrypt: why there is no Plain (ErrTampered, ErrUnavailable, ...)
}

// Decrypter decrypts what a token made with an AES key of its own, such as a
// Yubico OTP. It is a Keystore's: the same sessions, recovery and errors.
type Decrypter interface {
	// Decrypt runs the jobs, AES of one block each, and sets Plain or Err of
	// each, as Keystore.HMAC does with its jobs: ErrTampered if Binding does not
	// belong to Row and Wrapped, ErrUnsupported if the HSM has no AES-ECB,
	// ErrUnavailable if the HSM failed. It returns an error only if nothing was
	// done at all; then every job's Err is that error. The key is unwrapped
	// inside the HSM, after its binding was proven, as a session key that can do
	// nothing but decrypt. A seed that was wrapped for a digest is refused.
	Decrypt(ctx context.Context, jobs []*DecryptJob) error
}
