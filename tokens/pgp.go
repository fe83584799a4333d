package tokens

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// PGPMaker is an HSM that makes PGP keys.
type PGPMaker interface {
	hsm.Provisioner
	hsm.PGPHolder
}

// MakePGPKey makes a PGP key of so many bits, as MakeTransportKey does a transport
// key; older ones still open what was encrypted to them.
func (s *Service) MakePGPKey(ctx context.Context, keys PGPMaker, bits int) (version uint32, err error) {
	return s.makeHSMKey(ctx, keys, hsm.KeyPGP, policy.HSMPGPKey, func(version uint32) (hsm.KeyRecord, error) {
		return keys.CreatePGP(ctx, version, bits)
	})
}

// PGPKeys are the PGP keys in the HSM, the newest first; none if there are none.
func (s *Service) PGPKeys() []hsm.PGPKey {
	if h, ok := s.custody.(hsm.PGPHolder); ok {
		return h.PGPKeys()
	}
	return nil
}

// OpenPGP lets the HSM decrypt the session key of a message that is to be
// imported into a realm, for those who may import there; see hsm.PGPHolder. The
// caller wipes the answer. A ciphertext that is wrong, or not tried any more, is
// audited and wraps hsm.ErrPGPSession or hsm.ErrTransportLimit, and ErrInvalid.
func (s *Service) OpenPGP(ctx context.Context, p Principal, realm string, version uint32, ciphertext []byte) ([]byte, error) {
	realm, err := p.realm(realm)
	if err != nil {
		return nil, err
	}
	e := audit.Event{Realm: realm}
	if err := s.authorise(ctx, p, policy.ImportBegin, &e); err != nil {
		return nil, err
	}
	h, ok := s.custody.(hsm.PGPHolder)
	if !ok {
		return nil, fmt.Errorf("%w: this HSM has no PGP keys", ErrInvalid)
	}
	session, err := h.OpenPGP(hsm.Bulk(ctx), version, ciphertext)
	e.Outcome = "refused"
	e.Detail = []audit.Field{{Name: "version", Value: strconv.FormatUint(uint64(version), 10)}}
	switch {
	case err == nil:
		return session, nil
	case errors.Is(err, hsm.ErrPGPSession):
		e.Reason = "wrong_ciphertext"
	case errors.Is(err, hsm.ErrTransportLimit):
		e.Reason = "limit"
	case ctx.Err() != nil:
		// Leaving must be no way to use up all attempts without a trace.
		e.Outcome, e.Reason = "error", "interrupted"
		return nil, errors.Join(translate(err), s.record(context.WithoutCancel(ctx), p, policy.ImportPGP, e))
	default:
		return nil, translate(err)
	}
	if err := s.record(ctx, p, policy.ImportPGP, e); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
}
