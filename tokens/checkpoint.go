package tokens

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// SignedHeads are the ends of all chains as a checkpoint signed them. Who keeps them
// elsewhere can tell later whether anything before them was taken away.
type SignedHeads struct {
	Record    audit.Record // the checkpoint
	Heads     []audit.Head // by chain
	Signature []byte       // ECDSA P-256, r and s of 32 bytes each, over audit.CheckpointDigest(Heads)
	Key       []byte       // the public key, PKIX
}

// CheckpointAudit signs the heads of all chains, and answers them.
func (s *Service) CheckpointAudit(ctx context.Context, p Principal) (SignedHeads, error) {
	var e audit.Event
	if err := s.authorise(ctx, p, policy.Checkpoint, &e); err != nil {
		return SignedHeads{}, err
	}
	key, err := x509.MarshalPKIXPublicKey(s.custody.PublicKey())
	if err != nil {
		return SignedHeads{}, fmt.Errorf("the audit key: %w", err)
	}
	heads, err := s.db.Heads(ctx)
	if err != nil {
		return SignedHeads{}, unavailable(err)
	}
	// Our own chain is as long as we know: the database may show a commit of which we do
	// not know yet.
	own := s.ledger.end()
	if i := slices.IndexFunc(heads, func(h audit.Head) bool { return h.Chain == own.Chain }); i >= 0 {
		heads[i] = own
	}
	fields, signature, err := s.signHeads(ctx, audit.CheckpointDigest(heads), heads)
	if err != nil {
		return SignedHeads{}, err
	}
	e.Detail = fields
	c := Change{}
	if err := s.ledger.commit(ctx, &c, []audit.Event{s.event(p, policy.Checkpoint, e)}); err != nil {
		return SignedHeads{}, err
	}
	s.named.note(heads)
	return SignedHeads{Record: c.Records[0], Heads: heads, Signature: signature, Key: key}, nil
}

// note remembers heads as named.
func (n *named) note(heads []audit.Head) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.add(heads)
}

func (n *named) add(heads []audit.Head) {
	if n.last == nil {
		n.last = map[int64]int64{}
	}
	for _, h := range heads {
		n.last[h.Chain] = max(n.last[h.Chain], h.Seq)
	}
}
