package hsm

import "context"

// Generator makes seeds.
type Generator interface {
	// Generate makes a seed inside the HSM, as long as the digest (RFC 4226, section
	// 4, asks for 16 bytes or more), wraps it as Wrap does, and answers both. This is
	// the only time that the seed leaves the HSM: its owner's app must learn it. The
	// caller wipes the bytes. Nothing of it stays in the HSM. It fails with
	// ErrUnavailable if the HSM failed, at whatever step, and ErrUnsupported if it
	// makes neither secrets nor random numbers; then there is no seed.
	Generate(ctx context.Context, hash Hash) (wrapped Wrapped, seed []byte, err error)
}
