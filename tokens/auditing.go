package tokens

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"sync"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// The fields of the records that name and sign chain heads.
const (
	fieldHeads     = "heads"     // CHAIN:SEQ:HASH,...
	fieldSignature = "signature" // base64 of r and s, over audit.CheckpointDigest(heads)
	fieldKey       = "audit_key" // base64 of the public key, PKIX
)

// Records lists the audit, newest first. next is q.Before of the next page, zero
// where there is none; a page may be short, or empty, though there is another.
func (s *Service) Records(ctx context.Context, p Principal, q RecordQuery) (page []audit.Record, next int64, err error) {
	if err := q.valid(p); err != nil {
		return nil, 0, err
	}
	q.Limit = limit(q.Limit)
	e := audit.Event{Realm: q.Realm}
	if err := s.authorise(ctx, p, policy.AuditList, &e); err != nil {
		return nil, 0, err
	}
	page, next, err = s.db.Records(ctx, q)
	if err != nil {
		return nil, 0, unavailable(err)
	}
	return page, next, s.record(ctx, p, policy.AuditList, e)
}

// startEvent is the first record of a chain: it names the heads of all others,
// signed.
func (s *Service) startEvent(others []audit.Head) (audit.Event, error) {
	e := audit.Event{Time: s.started, Action: string(policy.ServerStart), Outcome: "ok", Actor: string(KindSystem)}
	der, err := x509.MarshalPKIXPublicKey(s.custody.PublicKey())
	if err != nil {
		return e, fmt.Errorf("the audit key: %w", err)
	}
	// The chain's own place before its first record is signed with them: so no other
	// chain can begin with this signature.
	heads := append(others[:len(others):len(others)], audit.Head{Chain: s.ledger.end().Chain})
	fields, _, err := s.signHeads(context.Background(), audit.CheckpointDigest(heads), heads)
	e.Detail = append(fields, audit.Field{Name: fieldKey, Value: base64.StdEncoding.EncodeToString(der)})
	return e, err
}

// named are the heads that this server's checkpoints have named, so that a
// checkpoint names only what moved.
type named struct {
	mu   sync.Mutex
	last map[int64]int64 // chain -> seq
}

// checkpoint signs the heads of all chains that moved since the last one.
func (s *Service) checkpoint(ctx context.Context, action policy.Action) error {
	heads, err := s.db.Heads(ctx)
	if err != nil {
		return unavailable(err)
	}
	own := s.ledger.end()
	s.named.mu.Lock()
	defer s.named.mu.Unlock()
	var moved []audit.Head
	for _, h := range heads {
		if h.Chain == own.Chain && h.Seq > own.Seq {
			continue // a commit of which we do not know yet
		}
		if s.named.last[h.Chain] != h.Seq {
			moved = append(moved, h)
		}
	}
	idle := len(moved) == 0 || len(moved) == 1 && moved[0].Chain == own.Chain && s.named.last[own.Chain]+1 == moved[0].Seq
	if idle && action == policy.Checkpoint {
		return nil // nothing happened but the last checkpoint
	}
	fields, _, err := s.signHeads(ctx, audit.CheckpointDigest(moved), moved)
	if err != nil {
		return err
	}
	e := audit.Event{Time: s.cfg.Now(), Action: string(action), Outcome: "ok", Actor: string(KindSystem), Detail: fields}
	if err := s.ledger.commit(ctx, &Change{}, []audit.Event{e}); err != nil {
		return err
	}
	s.named.add(moved)
	return nil
}

// signHeads makes the fields of a record that names heads, and signs their digest.
func (s *Service) signHeads(ctx context.Context, digest [32]byte, heads []audit.Head) ([]audit.Field, []byte, error) {
	signature, err := s.custody.Sign(ctx, digest[:])
	if err != nil {
		return nil, nil, fmt.Errorf("sign the audit's heads: %w", translate(err))
	}
	return []audit.Field{
		{Name: fieldHeads, Value: formatHeads(heads)},
		{Name: fieldSignature, Value: base64.StdEncoding.EncodeToString(signature)},
	}, signature, nil
}

func formatHeads(heads []audit.Head) string {
	parts := make([]string, len(heads))
	for i, h := range heads {
		parts[i] = fmt.Sprintf("%d:%d:%x", h.Chain, h.Seq, h.Hash)
	}
	return strings.Join(parts, ",")
}

var errHeads = errors.New("the heads that it names cannot be read")

func parseHeads(text string) ([]audit.Head, error) {
	var heads []audit.Head
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		f := strings.Split(part, ":")
		if len(f) != 3 {
			return nil, errHeads
		}
		chain, err1 := strconv.ParseInt(f[0], 10, 64)
		seq, err2 := strconv.ParseInt(f[1], 10, 64)
		hash, err3 := hex.DecodeString(f[2])
		h := audit.Head{Chain: chain, Seq: seq}
		if err1 != nil || err2 != nil || err3 != nil || len(hash) != len(h.Hash) {
			return nil, errHeads
		}
		copy(h.Hash[:], hash)
		heads = append(heads, h)
	}
	return heads, nil
}

// AuditReport is what VerifyAudit found.
type AuditReport struct {
	Intact      bool     `json:"intact"`
	Records     int64    `json:"records"`
	Chains      int      `json:"chains"`
	Checkpoints int      `json:"checkpoints"`
	Cuts        int      `json:"cuts"`      // signed ones, behind which old records were removed
	Unremoved   int64    `json:"unremoved"` // records that a cut names, and that are still to be removed
	Problems    []string `json:"problems"`  // the first hundred
}

const maxProblems = 100

func (r *AuditReport) problem(format string, args ...any) {
	r.Intact = false
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// fields are what the audit says of a verification.
func (r *AuditReport) fields() []audit.Field {
	return []audit.Field{{Name: "intact", Value: fmt.Sprint(r.Intact)}, {Name: "records", Value: itoa(r.Records)}}
}

// VerifyAudit recomputes every chain, from its beginning or from a signed cut on, checks
// that each head that a record names is there, and each signature with the HSM's audit
// key. Moving factors that fell, and passcodes that were used again, show that a token's
// row was set back, as long as the records of both are there. What was changed at the end
// of another server's chain since it was last named cannot be noticed here: hold the audit
// against what is kept elsewhere, with CompareAudit.
func (s *Service) VerifyAudit(ctx context.Context, p Principal) (AuditReport, error) {
	e := audit.Event{Realm: p.Realm}
	if err := s.authorise(ctx, p, policy.AuditVerify, &e); err != nil {
		return AuditReport{}, err
	}
	report := AuditReport{Intact: true, Problems: []string{}}
	v := s.verification(&report)
	if err := v.all(ctx); err != nil {
		return report, err
	}
	e.Detail = report.fields()
	return report, s.record(ctx, p, policy.AuditVerify, e)
}

// verification is one VerifyAudit.
type verification struct {
	s      *Service
	report *AuditReport
	own    audit.Head                // where our chain ended when it began
	want   map[int64]map[int64]place // chain -> seq -> the record that must be there
	signed map[[32]byte]struct{}     // the first half of each signature, which no two share
	used   map[[3]string]struct{}    // realm, serial and number of each passcode that was accepted
	cuts   cuts
	bound  bool // a chain was met whose start signs its own place: those after it do
}

func (s *Service) verification(report *AuditReport) *verification {
	return &verification{
		s: s, report: report, own: s.ledger.end(),
		want: map[int64]map[int64]place{}, signed: map[[32]byte]struct{}{}, used: map[[3]string]struct{}{},
	}
}

// all looks at all chains. What is appended while it reads is left for the next time:
// an open chain is read up to where it was when it came to it.
func (v *verification) all(ctx context.Context) error {
	chains, err := v.s.db.Chains(ctx)
	if err != nil {
		return unavailable(err)
	}
	if err := v.readCuts(ctx); err != nil {
		return err
	}
	v.expect(v.own, "this server wrote")
	read := map[int64]bool{}
	for len(chains) > 0 {
		for _, chain := range chains {
			if err := v.chain(ctx, chain); err != nil {
				return unavailable(err)
			}
			read[chain] = true
		}
		// A chain that was taken from the list is still named.
		chains = nil
		for chain := range v.want {
			if !read[chain] {
				v.report.problem("chain %d is not listed", chain)
				chains = append(chains, chain)
			}
		}
	}
	for chain, places := range v.want {
		if err := v.named(ctx, chain, places); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// place is a record that somebody knows.
type place struct {
	hash [32]byte
	by   string // who does what with it
}

// expect notes a head that must be there. Two who know the same place must know
// the same record: each start signs the heads that it finds, also those of a
// chain that was rewritten before.
func (v *verification) expect(h audit.Head, by string) {
	if h.Seq == 0 {
		return // the place before the first record
	}
	if v.want[h.Chain] == nil {
		v.want[h.Chain] = map[int64]place{}
	}
	known, ok := v.want[h.Chain][h.Seq]
	switch {
	case !ok:
		v.want[h.Chain][h.Seq] = place{h.Hash, by}
	case known.hash != h.Hash:
		v.report.problem("chain %d: record %d is named with two hashes: the chain was rewritten between two checkpoints", h.Chain, h.Seq)
	}
}

func (v *verification) chain(ctx context.Context, chain int64) error {
	head := audit.Head{Chain: chain}
	known := true // the hash before is the one that the next record was chained to
	report := v.report
	accepted := map[[2]string]int64{} // realm and serial -> the last moving factor
	err := v.s.db.Walk(ctx, chain, func(r *audit.Record) error {
		report.Records++
		cut := v.cuts.heads[chain]
		if r.Seq > head.Seq+1 && r.Seq > cut.Seq+1 {
			var err error
			if cut, err = v.cut(ctx, chain, r.Seq-1); err != nil {
				return err
			}
		}
		if head.Seq < cut.Seq && r.Seq > cut.Seq {
			head, known = cut, true // what was before is not there any more
		}
		switch {
		case r.Seq > head.Seq+1 && r.Seq <= cut.Seq:
			known = false
		case r.Seq > head.Seq+1:
			report.problem("chain %d: records %d to %d are missing", chain, head.Seq+1, r.Seq-1)
			known = false
		case r.Seq <= head.Seq:
			report.problem("chain %d: record %d has no place in it", chain, r.Seq)
			known = false
		}
		if r.Seq == 1 && r.Action != string(policy.ServerStart) {
			report.problem("chain %d does not begin with the start of a server", chain)
		}
		if known && audit.Sum(head.Hash, chain, r.Seq, &r.Event) != r.Hash {
			report.problem("chain %d: record %d was altered, or the one before it", chain, r.Seq)
		}
		if r.Seq <= cut.Seq {
			report.Unremoved++
			switch {
			case v.cuts.done[chain] >= r.Seq:
				report.problem("chain %d: record %d stands where a signed cut removed it: it was put there", chain, r.Seq)
			case r.Seq == cut.Seq && r.Hash != cut.Hash:
				report.problem("chain %d: record %d is not the one that a signed cut named", chain, r.Seq)
			}
		}
		known = true
		head.Seq, head.Hash = r.Seq, r.Hash
		v.heads(r)
		if factor, ok := consumed(r); ok {
			token := [2]string{r.Realm, r.Serial}
			if last, ok := accepted[token]; ok && factor <= last {
				report.problem("chain %d: record %d: token %s consumed moving factor %d after %d: its row was set back in the database", chain, r.Seq, r.Serial, factor, last)
			}
			accepted[token] = factor
		}
		if number, ok := numbered(r); ok {
			use := [3]string{r.Realm, r.Serial, number}
			if _, ok := v.used[use]; ok { // in whichever chain
				report.problem("chain %d: record %d: number %s of passcode %s was accepted before: its row was set back in the database", chain, r.Seq, number, r.Serial)
			}
			v.used[use] = struct{}{}
		}
		return nil
	})
	if head.Seq > 0 {
		report.Chains++
	}
	return err
}

// consumed is the moving factor that a record says was consumed. A token's rise
// from record to record of a chain, whoever holds the token.
func consumed(r *audit.Record) (int64, bool) {
	switch {
	case r.Action == string(policy.Verify) && (r.Outcome == "accept" || r.Outcome == "challenge"): // a question may use a code up
	case (r.Action == string(policy.TokenResync) || r.Action == string(policy.TokenConfirm) || r.Action == string(policy.TokenActivate)) && r.Outcome == "ok":
	default:
		return 0, false
	}
	for _, f := range r.Detail {
		if f.Name == "factor" {
			n, err := strconv.ParseInt(f.Value, 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// numbered is which code of a recovery sheet a record says was accepted, or which use
// of a temporary passcode. Each is there once.
func numbered(r *audit.Record) (string, bool) {
	if r.Action != string(policy.Verify) || r.Outcome != "accept" && r.Outcome != "challenge" {
		return "", false
	}
	for _, f := range r.Detail {
		if f.Name == fieldNumber {
			return f.Value, true
		}
	}
	return "", false
}

// heads checks the signature of a record that names heads, and notes the heads
// to be looked for.
func (v *verification) heads(r *audit.Record) {
	if isCut(r) {
		v.report.Cuts++
		if _, err := v.s.provenCut(r); err != nil {
			v.report.problem("chain %d: record %d: %v", r.Chain, r.Seq, err)
		}
		return
	}
	heads, sig, ok := v.signedHeads(r, "")
	if !ok {
		return
	}
	if r.Action == string(policy.ServerStart) {
		v.begins(r, heads)
	}
	if sig != nil {
		// A chain that was made up must begin with a signature, and whoever makes
		// one up has only those that are there.
		half := [32]byte(sig)
		if _, ok := v.signed[half]; ok {
			v.report.problem("chain %d: record %d: the signature was taken from another record", r.Chain, r.Seq)
		}
		v.signed[half] = struct{}{}
	}
	for _, h := range heads {
		v.expect(h, "a checkpoint signed")
	}
}

// signedHeads are the heads that a record names, and their signature, nil if that is
// wrong. ok: the record is one that names heads, and they can be read.
func (v *verification) signedHeads(r *audit.Record, where string) (heads []audit.Head, signature []byte, ok bool) {
	switch policy.Action(r.Action) {
	case policy.ServerStart, policy.ServerStop:
	case policy.Checkpoint:
		if r.Outcome != "ok" {
			return nil, nil, false
		}
	default:
		return nil, nil, false
	}
	v.report.Checkpoints++
	heads, err := parseHeads(detail(r, fieldHeads))
	if err != nil {
		v.report.problem("%schain %d: record %d: %v", where, r.Chain, r.Seq, err)
		return nil, nil, false
	}
	signature, err = base64.StdEncoding.DecodeString(detail(r, fieldSignature))
	if err != nil || !v.s.verifySignature(audit.CheckpointDigest(heads), signature) {
		v.report.problem("%schain %d: record %d: the signature over the chain heads is wrong", where, r.Chain, r.Seq)
		signature = nil
	}
	return heads, signature, true
}

// begins sees that the start of a chain is its own.
func (v *verification) begins(r *audit.Record, heads []audit.Head) {
	own := false
	for _, h := range heads {
		if h.Seq == 0 && h.Chain != r.Chain {
			v.report.problem("chain %d: record %d is the start of chain %d", r.Chain, r.Seq, h.Chain)
		}
		own = own || h == audit.Head{Chain: r.Chain}
	}
	if v.bound && !own {
		v.report.problem("chain %d: record %d does not sign that it begins this chain, as those of chains before it do: it was taken from another", r.Chain, r.Seq)
	}
	v.bound = v.bound || own
}

func (s *Service) verifySignature(digest [32]byte, signature []byte) bool {
	key, ok := s.custody.PublicKey().(*ecdsa.PublicKey)
	if !ok || len(signature) != 64 {
		return false
	}
	return ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
}

// named looks for the records of one chain that somebody knows.
func (v *verification) named(ctx context.Context, chain int64, places map[int64]place) error {
	cut := v.cuts.heads[chain]
	for seq, p := range places {
		if seq == cut.Seq && p.hash != cut.Hash {
			v.report.problem("chain %d: record %d, which %s, was not the one that a signed cut removed", chain, seq, p.by)
		}
		if seq <= cut.Seq {
			delete(places, seq)
		}
	}
	err := v.s.db.Walk(ctx, chain, func(r *audit.Record) error {
		if p, ok := places[r.Seq]; ok {
			if p.hash != r.Hash {
				v.report.problem("chain %d: record %d is not the one that %s", chain, r.Seq, p.by)
			}
			delete(places, r.Seq)
		}
		return nil
	})
	for seq, p := range places {
		v.report.problem("chain %d: record %d, which %s, is missing", chain, seq, p.by)
	}
	return err
}
