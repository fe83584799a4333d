package tokens

import (
	"context"
	"fmt"
	"slices"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// Finding is what a row of the credential report should make somebody look at.
type Finding string

// The findings. Those of a user stand in each row of the user, those of a token in
// its own.
const (
	FindNoSecondFactor Finding = "no_second_factor" // the user is enabled and holds nothing but passcodes that works
	FindLocked         Finding = "locked"
	FindPINDue         Finding = "pin_due"
	FindUnused         Finding = "unused"     // active, and for long neither accepted nor handed out
	FindNeverUsed      Finding = "never_used" // active, and never accepted
	FindSHA1           Finding = "sha1"       // its codes are made with SHA-1
	FindExpired        Finding = "expired"    // nothing of it is accepted any more
	FindDrift          Finding = "drift"      // its clock was three steps or more off
)

// Findings are all of them.
func Findings() []Finding {
	return []Finding{FindNoSecondFactor, FindUnused, FindSHA1, FindExpired, FindLocked, FindPINDue, FindNeverUsed, FindDrift}
}

// defaultUnused is how long a token was not used that counts as unused.
const defaultUnused = 90 * 24 * time.Hour

// farOff is how many steps a clock is off that is a finding: the windows of an
// ordinary login forgive one, and widen to five.
const farOff = 3

// ReportQuery says what is to be reported.
type ReportQuery struct {
	Realm   string
	Unowned bool          // also tokens that nobody holds
	Unused  time.Duration // how long a token was not used that counts as unused; zero: 90 days
	Find    Finding       // only the rows with it; empty: all
}

// ReportRow is a user with one token, a user without tokens, or a token that
// nobody holds. Fields that do not apply are empty. Times are zero for "never".
type ReportRow struct {
	Realm        string
	User         string // as entered; empty if nobody holds the token
	Display      string
	UserState    UserState
	Locked       bool
	Failures     int    // consecutive, since the last accept
	PIN          string // none, set, due
	Serial       string // empty if the user has no token
	Type         Type
	Algorithm    string // sha1, sha256, sha512; of codes made by HMAC
	Digits       int
	Period       int // seconds
	State        State
	Assigned     time.Time
	LastUsed     time.Time
	DriftSeconds *int // that its clock was ahead of ours when it was last accepted; nil where nothing is known of a clock
	Expires      time.Time
	Attestation  string // FIDO: what its attestation proved
	Model        string // as its maker calls it; of a FIDO key without a name its AAGUID
	Batch        int64  // the import that it came with; zero if it was enrolled
	Tags         []string
	Findings     []Finding
}

// Report calls f with each row of the credential report: users in order of ID,
// each with one row for each token; then, if asked for, tokens that nobody holds.
// It reads in pages, so that it takes the same memory however long it is, and a
// token that moves meanwhile may be in it twice or not at all. It ends with f's
// first error.
func (s *Service) Report(ctx context.Context, p Principal, q ReportQuery, f func(ReportRow) error) error {
	r, err := s.report(ctx, p, q)
	if err != nil {
		return err
	}
	return r.each(ctx, func(row *CredentialRow) error {
		for _, out := range r.rows(row) {
			if q.Find != "" && !slices.Contains(out.Findings, q.Find) {
				continue
			}
			if err := f(out); err != nil {
				return err
			}
		}
		return nil
	})
}

// report is one reading of the credential report.
type report struct {
	s      *Service
	query  CredentialQuery
	now    time.Time
	unused time.Duration
	both   bool // users, and tokens that nobody holds
}

// report looks at what is asked, and whether p may have it; it is audited before
// anything is answered.
func (s *Service) report(ctx context.Context, p Principal, q ReportQuery) (*report, error) {
	realm, err := p.listed(q.Realm)
	if err != nil {
		return nil, err
	}
	if q.Find != "" && !slices.Contains(Findings(), q.Find) {
		return nil, fmt.Errorf("%w: no finding %q; there are %v", ErrInvalid, q.Find, Findings())
	}
	if q.Unused < 0 {
		return nil, fmt.Errorf("%w: unused for less than no time", ErrInvalid)
	}
	if q.Unused == 0 {
		q.Unused = defaultUnused
	}
	e := audit.Event{Realm: realm}
	if q.Find != "" {
		e.Detail = []audit.Field{{Name: "find", Value: string(q.Find)}}
	}
	if err := s.authorise(ctx, p, policy.ReportShow, &e); err != nil {
		return nil, err
	}
	return &report{
		s: s, query: CredentialQuery{Realm: realm, Limit: 500}, now: s.cfg.Now(), unused: q.Unused, both: q.Unowned,
	}, s.record(ctx, p, policy.ReportShow, e)
}

// each calls f with each user, and token that nobody holds.
func (r *report) each(ctx context.Context, f func(*CredentialRow) error) error {
	q := r.query
	for {
		page, err := r.s.db.Credentials(ctx, q)
		if err != nil {
			return unavailable(err)
		}
		for i := range page {
			if u := page[i].User; u != nil {
				q.After = u.User.ID
			} else {
				q.After = page[i].Tokens[0].ID
			}
			if err := f(&page[i]); err != nil {
				return err
			}
		}
		switch {
		case len(page) == q.Limit:
		case r.both && !q.Unowned:
			q.Unowned, q.After = true, 0
		default:
			return nil
		}
	}
}

// rows are what the report says of a user, or of a token that nobody holds.
func (r *report) rows(row *CredentialRow) []ReportRow {
	var user ReportRow
	if u := row.User; u != nil {
		user = ReportRow{
			Realm: u.Realm, User: u.Name, Display: u.Profile.Display, UserState: u.State, Locked: u.Locked,
			Failures: u.Failures, PIN: "none",
		}
		switch {
		case u.mustChangePIN():
			user.PIN = "due"
			user.Findings = append(user.Findings, FindPINDue)
		case u.HasPIN():
			user.PIN = "set"
		}
		if u.Locked {
			user.Findings = append(user.Findings, FindLocked)
		}
		if u.State == UserEnabled && !slices.ContainsFunc(row.Tokens, r.works) {
			user.Findings = append(user.Findings, FindNoSecondFactor)
		}
		if len(row.Tokens) == 0 {
			return []ReportRow{user}
		}
	}
	rows := make([]ReportRow, len(row.Tokens))
	for i := range row.Tokens {
		rows[i] = user
		r.token(&rows[i], &row.Tokens[i])
	}
	return rows
}

// works says whether the token is a second factor to its owner now.
func (r *report) works(t Token) bool {
	return t.State == Active && !t.passcode() && !r.expired(&t)
}

func (r *report) expired(t *Token) bool { return !t.Expires.IsZero() && !r.now.Before(t.Expires) }

// token fills in what the report says of a token.
func (r *report) token(row *ReportRow, t *Token) {
	row.Realm, row.Serial, row.Type, row.Digits, row.Period, row.State = t.Realm, t.Serial, t.Type, t.Digits, t.Period, t.State
	row.Assigned, row.Expires, row.Model, row.Batch, row.Tags = t.Assigned, t.Expires, t.Model, t.Batch, t.Tags
	if t.Type == TOTP && (t.UsedAt != 0 || t.Drift != 0) {
		seconds := t.Drift * t.Period
		row.DriftSeconds = &seconds
	}
	if t.UsedAt != 0 {
		row.LastUsed = time.Unix(t.UsedAt, 0).UTC()
	}
	find := func(found bool, f Finding) {
		if found {
			row.Findings = append(slices.Clip(row.Findings), f)
		}
	}
	if t.Type == TOTP || t.Type == HOTP {
		row.Algorithm = t.Algorithm.String()
		find(t.Algorithm == hsm.SHA1, FindSHA1)
	}
	if c := t.Credential; c != nil {
		row.Attestation = c.Attestation
		if row.Model == "" {
			row.Model = FormatAAGUID(c.AAGUID)
		}
	}
	if t.State == Active && !t.passcode() {
		since := t.Created
		if t.Assigned.After(since) {
			since = t.Assigned
		}
		if row.LastUsed.After(since) {
			since = row.LastUsed
		}
		find(r.now.Sub(since) >= r.unused, FindUnused)
		find(t.UsedAt == 0, FindNeverUsed)
	}
	find(r.expired(t), FindExpired)
	find(t.Type == TOTP && (t.Drift >= farOff || t.Drift <= -farOff), FindDrift)
}
