package tokens

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// A cut is a record that names, for each chain, the last of its records that was
// removed, with its hash, and signs them. It is durable before the first record goes.
// Each names what all before it removed, too, so that the newest is enough. When the
// removal is through, another record says so; until then whoever comes next goes on
// with it.

// The further fields of a cut's records.
const (
	fieldLast  = "last"  // ID of the last record that it removes
	fieldEnds  = "ends"  // of the record that says it is through: CHAIN:SEQ of the cut
	fieldSince = "since" // before which records were to go, RFC 3339
)

// removal is what a signed cut names.
type removal struct {
	heads []audit.Head
	last  int64
}

// isCut says whether a record is, or ought to be, a signed cut.
func isCut(r *audit.Record) bool {
	return r.Action == string(policy.AuditCut) && r.Outcome == "ok" && detail(r, fieldHeads) != ""
}

var errCut = errors.New("the signature of the cut is wrong: it proves nothing")

// provenCut reads a signed cut.
func (s *Service) provenCut(r *audit.Record) (removal, error) {
	heads, err := parseHeads(detail(r, fieldHeads))
	if err != nil {
		return removal{}, err
	}
	last, err := strconv.ParseInt(detail(r, fieldLast), 10, 64)
	if err != nil {
		return removal{}, errCut
	}
	signature, err := base64.StdEncoding.DecodeString(detail(r, fieldSignature))
	if err != nil || !s.verifySignature(audit.CutDigest(heads, last), signature) {
		return removal{}, errCut
	}
	return removal{heads, last}, nil
}

// cuts are all that are known.
type cuts struct {
	heads   map[int64]audit.Head // chain -> the last record that was removed
	done    map[int64]int64      // chain -> up to where the removal is through
	pending []pendingCut
	looked  int
}

// pendingCut is a cut whose removal is not through.
type pendingCut struct {
	removal
	name string // CHAIN:SEQ
}

// mostLooks is how often one verification looks for cuts that were made meanwhile.
const mostLooks = 20

// readCuts reads what was removed from the audit by signed cuts. A wrong one is no
// cut; it is named where its chain is looked at.
func (s *Service) readCuts(ctx context.Context) (c cuts, contradictions []string, err error) {
	c = cuts{heads: map[int64]audit.Head{}, done: map[int64]int64{}}
	ended := map[string]bool{}
	q := RecordQuery{Action: string(policy.AuditCut), Outcome: "ok", Limit: 1000}
	for {
		page, next, err := s.db.Records(ctx, q)
		if err != nil {
			return c, nil, unavailable(err)
		}
		for i := range page {
			r := &page[i]
			if ends := detail(r, fieldEnds); ends != "" {
				ended[ends] = true
			}
			if !isCut(r) {
				continue
			}
			cut, err := s.provenCut(r)
			if err != nil {
				continue
			}
			name := fmt.Sprintf("%d:%d", r.Chain, r.Seq)
			for _, h := range cut.heads {
				known, ok := c.heads[h.Chain]
				if ok && known.Seq == h.Seq && known.Hash != h.Hash {
					contradictions = append(contradictions, fmt.Sprintf("chain %d: two signed cuts name record %d with two hashes", h.Chain, h.Seq))
				}
				if h.Seq > known.Seq {
					c.heads[h.Chain] = h
				}
				if ended[name] {
					c.done[h.Chain] = max(c.done[h.Chain], h.Seq)
				}
			}
			if !ended[name] {
				c.pending = append(c.pending, pendingCut{cut, name})
			}
		}
		if q.Before = next; next == 0 {
			return c, contradictions, nil
		}
	}
}

func (v *verification) readCuts(ctx context.Context) error {
	looked := v.cuts.looked
	c, contradictions, err := v.s.readCuts(ctx)
	if err != nil {
		return err
	}
	if looked == 0 {
		for _, text := range contradictions {
			v.report.problem("%s", text)
		}
	}
	c.looked = looked + 1
	v.cuts = c
	return nil
}

// cut is the last record that was removed from a chain. If that is before seq, it may
// be that somebody cut meanwhile.
func (v *verification) cut(ctx context.Context, chain, seq int64) (audit.Head, error) {
	if v.cuts.heads[chain].Seq < seq && v.cuts.looked < mostLooks {
		if err := v.readCuts(ctx); err != nil {
			return audit.Head{}, err
		}
	}
	return v.cuts.heads[chain], nil
}
