package tokens

import (
	"cmp"
	"context"
	"slices"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// Summary counts what the credential report would list.
type Summary struct {
	Time     time.Time
	Realm    string // empty: all
	Users    int
	Disabled int          // users
	Unowned  int          // tokens that nobody holds
	Tokens   []TokenCount // by type and state, in order; revoked ones left out
	Findings []FindingCount
	Resyncs  []ResyncCount
}

// TokenCount is how many tokens of a type are in a state.
type TokenCount struct {
	Type  Type
	State State
	Count int
}

// FindingCount is how many users, or tokens, a finding concerns: see Findings.
type FindingCount struct {
	Finding Finding
	Count   int
}

// ResyncCount is an import whose tokens had to be resynchronised often lately.
type ResyncCount struct {
	Batch   int64
	Name    string // of the file
	Tokens  int    // that came with it
	Resyncs int    // that succeeded, in the last 90 days
}

// What resyncs are many: this many at least, and for so many tokens one.
const (
	resyncDays   = 90 * 24 * time.Hour
	manyResyncs  = 3
	tokensResync = 50
)

// Summary counts users, tokens and findings of a realm, or of all realms, tokens
// that nobody holds among them. unused is as in ReportQuery. It reads what the
// report reads, in the same memory.
func (s *Service) Summary(ctx context.Context, p Principal, realm string, unused time.Duration) (Summary, error) {
	r, err := s.report(ctx, p, ReportQuery{Realm: realm, Unused: unused, Unowned: true})
	if err != nil {
		return Summary{}, err
	}
	out := Summary{Time: r.now, Realm: r.query.Realm}
	kinds := make(map[TokenCount]int)
	findings := make(map[Finding]int)
	err = r.each(ctx, func(row *CredentialRow) error {
		if u := row.User; u == nil {
			out.Unowned++
		} else {
			out.Users++
			if u.State == UserDisabled {
				out.Disabled++
			}
		}
		for _, t := range row.Tokens {
			kinds[TokenCount{Type: t.Type, State: t.State}]++
		}
		for i, line := range r.rows(row) {
			for _, f := range line.Findings {
				if i == 0 || !f.ofUser() {
					findings[f]++
				}
			}
		}
		return nil
	})
	if err != nil {
		return Summary{}, err
	}
	for kind, n := range kinds {
		kind.Count = n
		out.Tokens = append(out.Tokens, kind)
	}
	slices.SortFunc(out.Tokens, func(a, b TokenCount) int { return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.State, b.State)) })
	for _, f := range Findings() {
		out.Findings = append(out.Findings, FindingCount{f, findings[f]})
	}
	out.Resyncs, err = s.resyncs(ctx, r)
	return out, err
}

// ofUser says whether a finding is a user's, rather than a token's.
func (f Finding) ofUser() bool {
	return f == FindNoSecondFactor || f == FindLocked || f == FindPINDue
}

// resyncs answers the imports with many resynchronisations, those with the most
// for each token first.
func (s *Service) resyncs(ctx context.Context, r *report) ([]ResyncCount, error) {
	counts := make(map[int64]*ResyncCount)
	imports := make(map[[2]string]int64) // by realm and serial: what was looked up last
	q := RecordQuery{Realm: r.query.Realm, Action: string(policy.TokenResync), Outcome: "ok", Limit: 1000}
	for more := true; more; {
		page, next, err := s.db.Records(ctx, q)
		if err != nil {
			return nil, unavailable(err)
		}
		for i := range page {
			if r.now.Sub(page[i].Time) > resyncDays {
				next = 0
				break
			}
			batch, err := s.importOf(ctx, imports, &page[i])
			if err != nil {
				return nil, err
			}
			if batch == 0 {
				continue
			}
			if counts[batch] == nil {
				counts[batch] = &ResyncCount{Batch: batch}
			}
			counts[batch].Resyncs++
		}
		q.Before, more = next, next != 0
	}
	var many []ResyncCount
	for _, c := range counts {
		list, err := s.db.Batches(ctx, BatchQuery{ID: c.Batch, Limit: 1})
		if err != nil {
			return nil, unavailable(err)
		}
		if len(list) == 0 {
			continue
		}
		c.Name, c.Tokens = list[0].Name, list[0].Tokens
		if c.Resyncs >= manyResyncs && c.Resyncs*tokensResync >= c.Tokens {
			many = append(many, *c)
		}
	}
	slices.SortFunc(many, func(a, b ResyncCount) int {
		return cmp.Or(cmp.Compare(b.Resyncs*max(a.Tokens, 1), a.Resyncs*max(b.Tokens, 1)), cmp.Compare(a.Batch, b.Batch))
	})
	return many[:min(len(many), 100)], nil
}

// importOf is the import that the token of a record came with; zero if there is
// none any more.
func (s *Service) importOf(ctx context.Context, known map[[2]string]int64, r *audit.Record) (int64, error) {
	token := [2]string{r.Realm, r.Serial}
	if batch, ok := known[token]; ok {
		return batch, nil
	}
	list, _, err := s.db.Tokens(ctx, TokenQuery{Realm: r.Realm, Serial: r.Serial, Limit: 1})
	if err != nil {
		return 0, unavailable(err)
	}
	if len(known) == 10_000 {
		clear(known) // what is asked for again costs a query
	}
	known[token] = 0
	if len(list) > 0 {
		known[token] = list[0].Batch
	}
	return known[token], nil
}
