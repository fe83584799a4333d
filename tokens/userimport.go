package tokens

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// UserImport says how a file of users is imported.
type UserImport struct {
	Realm  string // empty: the principal's, or the default one
	DryRun bool   // everything is checked, nothing written
	Update bool   // users whom there are get what the file says; else they are left alone
}

// What became of a record.
const (
	UserCreated   = "created"
	UserUpdated   = "updated"
	UserUnchanged = "unchanged" // there is such a user already
	UserExists    = "exists"    // there is such a user, and updating was not asked for
	UserRejected  = "rejected"
)

// UserReport is what an import of users did, or would do.
type UserReport struct {
	Created, Updated int
	Unchanged        int // with those that exist and were left alone
	Rejected         int // if there are any, nothing was written

	// Records are those that were updated, exist or were rejected, in the order of
	// the file.
	Records []UserOutcome
}

// UserOutcome is what became of one record.
type UserOutcome struct {
	Line    int // where it begins; the header row is line 1
	Name    string
	Outcome string // see UserCreated
	Reason  string // why it was rejected, and where in the line
}

func (r *UserReport) add(line int, name, outcome, reason string) {
	switch outcome {
	case UserCreated:
		r.Created++
		return
	case UserUnchanged:
		r.Unchanged++
		return
	case UserExists:
		r.Unchanged++
	case UserUpdated:
		r.Updated++
	case UserRejected:
		r.Rejected++
	}
	r.Records = append(r.Records, UserOutcome{Line: line, Name: name, Outcome: outcome, Reason: reason})
}

// userChunk is how many users are written at once: logins wait meanwhile.
const userChunk = 250

// ImportUsers makes the users of a CSV file with a header row, and, where it is asked
// to, gives those whom there are what the file has columns for. The whole file is
// checked first: if it cannot be read, the error wraps ErrInvalid and says where; if
// a record is bad, the report says so, and nothing is written in either case. Then
// it is written in chunks, each with an audit record of its counts.
//
// If it ends in the middle, some of the users are there: to import the file again
// makes the rest. An external id that another user has at the time is refused, also
// if the file gives that user another one.
func (s *Service) ImportUsers(ctx context.Context, p Principal, in UserImport, r io.Reader) (UserReport, error) {
	realm, err := p.realm(in.Realm)
	if err != nil {
		return UserReport{}, err
	}
	in.Realm = realm
	e := audit.Event{Realm: realm}
	if err := s.authorise(ctx, p, policy.UserImport, &e); err != nil {
		return UserReport{}, err
	}
	hash := sha256.New()
	i := &userImport{s: s, p: p, in: in, policy: e.Policy}
	report, err := i.check(ctx, io.TeeReader(r, hash))
	i.sum = audit.Field{Name: "sha256", Value: hex.EncodeToString(hash.Sum(nil))}
	if err != nil {
		return UserReport{}, s.refuse(ctx, p, policy.UserImport, e, err)
	}
	if report.Rejected > 0 || in.DryRun {
		if e.Reason = "dry_run"; !in.DryRun {
			e.Outcome, e.Reason = "refused", "invalid"
		}
		e.Detail = i.detail(&report)
		if report.Rejected > 0 {
			report.Created, report.Updated, report.Unchanged = 0, 0, 0
			report.Records = slices.DeleteFunc(report.Records, func(o UserOutcome) bool { return o.Outcome != UserRejected })
		}
		return report, s.record(ctx, p, policy.UserImport, e)
	}
	return i.write(ctx)
}

// userImport is one ImportUsers.
type userImport struct {
	s       *Service
	p       Principal
	in      UserImport
	policy  string // what let it begin, as in audit.Event
	file    *userFile
	records []userRecord
	sum     audit.Field // of the file
}

// detail are the counts, for the audit.
func (i *userImport) detail(r *UserReport) []audit.Field {
	return []audit.Field{
		i.sum, {Name: "created", Value: strconv.Itoa(r.Created)}, {Name: "updated", Value: strconv.Itoa(r.Updated)},
		{Name: "unchanged", Value: strconv.Itoa(r.Unchanged)}, {Name: "rejected", Value: strconv.Itoa(r.Rejected)},
	}
}

// check reads the whole file, and says what writing it would do.
func (i *userImport) check(ctx context.Context, r io.Reader) (UserReport, error) {
	var report UserReport
	var err error
	if i.file, err = readUsers(r); err != nil {
		return report, err
	}
	names, externals := map[string]int{}, map[string]int{} // and on which line they are
	for {
		r, err := i.file.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return report, err
		}
		if u := r.user.User; r.bad == "" {
			if line, twice := names[u.Key]; twice {
				r.bad = fmt.Sprintf("the name is that of line %d", line)
			} else if line, twice := externals[u.Profile.External]; twice && u.Profile.External != "" {
				r.bad = fmt.Sprintf("the external_id is that of line %d", line)
			}
			names[u.Key], externals[u.Profile.External] = r.line, r.line
		}
		i.records = append(i.records, r)
	}
	var good []*userRecord
	flush := func() error {
		actions, err := i.plan(ctx, good)
		for k, a := range actions {
			report.add(good[k].line, good[k].user.User.Name, a.outcome, a.why)
		}
		good = good[:0]
		return err
	}
	for k := range i.records {
		r := &i.records[k]
		if r.bad == "" {
			if good = append(good, r); len(good) < loadPage {
				continue
			}
		}
		if err := flush(); err != nil {
			return report, err
		}
		if r.bad != "" {
			name := ""
			if r.user.User != nil {
				name = r.user.User.Name
			}
			report.add(r.line, name, UserRejected, r.bad)
		}
	}
	return report, flush()
}

// userAction is what is done with a record.
type userAction struct {
	outcome string
	why     string   // of one that is rejected
	subject *Subject // who is there; nil: nobody
	profile *Profile // the next one; nil: it stays
	groups  []string // the next ones; nil: they stay
}

// plan says what is to be done with records, as the database is now.
func (i *userImport) plan(ctx context.Context, list []*userRecord) ([]userAction, error) {
	if len(list) == 0 {
		return nil, nil
	}
	refs := make([]Ref, len(list))
	for k, r := range list {
		refs[k] = Ref{Realm: i.in.Realm, User: r.user.User.Key}
	}
	view, err := i.s.db.Load(ctx, refs)
	if err != nil {
		return nil, unavailable(err)
	}
	out := make([]userAction, len(list))
	for k, r := range list {
		out[k] = userAction{outcome: UserCreated, subject: view.Subjects[k]}
		if out[k].subject != nil {
			if out[k], err = i.update(ctx, r, out[k].subject); err != nil {
				return nil, err
			}
		}
		if err := i.exclusive(ctx, r, &out[k]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// update says what is to be done with a record whose user is there.
func (i *userImport) update(ctx context.Context, r *userRecord, sub *Subject) (userAction, error) {
	a := userAction{outcome: UserExists, subject: sub}
	if !i.in.Update {
		return a, nil
	}
	// Read after the user was: what changes meanwhile moves the user's version.
	was := sub.entry()
	if err := i.s.describe(ctx, &was); err != nil {
		return a, err
	}
	next := i.file.replace(was.Profile, r)
	if err := next.check(); err != nil { // too many attributes, with those that stay
		a.outcome, a.why = UserRejected, reasonOf(err)
		return a, nil
	}
	if len(was.Profile.differs(&next)) > 0 {
		a.profile = &next
	}
	if i.file.has(columnGroups) && !slices.Equal(was.Groups, r.user.Groups) {
		a.groups = r.user.Groups
	}
	if a.outcome = UserUpdated; a.profile == nil && a.groups == nil {
		a.outcome = UserUnchanged
	}
	return a, nil
}

// exclusive rejects an external id that somebody else has.
func (i *userImport) exclusive(ctx context.Context, r *userRecord, a *userAction) error {
	external := r.user.User.Profile.External
	if external == "" || a.outcome != UserCreated && a.profile == nil {
		return nil
	}
	list, _, err := i.s.db.Users(ctx, UserQuery{Realm: i.in.Realm, External: external, Limit: 1})
	if err != nil {
		return unavailable(err)
	}
	if len(list) > 0 && list[0].Key != r.user.User.Key {
		a.outcome, a.why = UserRejected, fmt.Sprintf("the external_id is that of user %s", list[0].Name)
	}
	return nil
}

// write writes the records in chunks. After an error the report says what was
// written before.
func (i *userImport) write(ctx context.Context) (UserReport, error) {
	var report UserReport
	for from := 0; from < len(i.records); from += userChunk {
		chunk := make([]*userRecord, 0, userChunk)
		for k := from; k < min(from+userChunk, len(i.records)); k++ {
			chunk = append(chunk, &i.records[k])
		}
		if err := i.chunk(ctx, chunk, &report); err != nil {
			return report, i.s.refuse(ctx, i.p, policy.UserImport, audit.Event{Realm: i.in.Realm, Policy: i.policy, Detail: i.detail(&report)}, err)
		}
	}
	if len(i.records) == 0 {
		return report, i.s.record(ctx, i.p, policy.UserImport, audit.Event{Realm: i.in.Realm, Policy: i.policy, Detail: i.detail(&report)})
	}
	return report, nil
}

// chunk writes some records, all or none; again if somebody was first.
func (i *userImport) chunk(ctx context.Context, list []*userRecord, report *UserReport) error {
	e := audit.Event{Realm: i.in.Realm}
	var err error
	for range conflicts {
		if err = i.s.authorise(ctx, i.p, policy.UserImport, &e); err != nil {
			return err
		}
		var actions []userAction
		if actions, err = i.plan(ctx, list); err != nil {
			return err
		}
		var done UserReport
		c, err2 := i.change(list, actions, &done)
		if err2 != nil {
			return err2
		}
		e.Detail = append(i.detail(&done), audit.Field{Name: "lines", Value: fmt.Sprintf("%d-%d", list[0].line, list[len(list)-1].line)})
		err = i.s.ledger.commit(ctx, c, []audit.Event{i.s.event(i.p, policy.UserImport, e)})
		switch {
		case err == nil:
			report.Created += done.Created
			report.Updated += done.Updated
			report.Unchanged += done.Unchanged
			report.Records = append(report.Records, done.Records...)
			return nil
		case !errors.Is(err, ErrConflict) && !errors.Is(err, ErrExists):
			return err
		}
	}
	return err
}

// change is what a chunk writes.
func (i *userImport) change(list []*userRecord, actions []userAction, done *UserReport) (*Change, error) {
	c := &Change{}
	now := i.s.cfg.Now().UTC()
	for k, a := range actions {
		r := list[k]
		done.add(r.line, r.user.User.Name, a.outcome, a.why)
		switch a.outcome {
		case UserRejected: // somebody else changed something since it was checked
			return nil, fmt.Errorf("%w: line %d: meanwhile %s; what stands before was imported", ErrState, r.line, a.why)
		case UserCreated:
			u := *r.user.User // the Commit that fails may leave its ID
			u.Realm, u.Created = i.in.Realm, now
			c.NewUsers = append(c.NewUsers, NewUser{User: &u, Groups: r.user.Groups})
		case UserUpdated:
			id := a.subject.User.ID
			if a.profile != nil {
				c.Profiles = append(c.Profiles, ProfileWrite{UserID: id, Profile: *a.profile})
			}
			if a.groups != nil {
				c.Groups = append(c.Groups, GroupsWrite{UserID: id, Groups: a.groups})
			}
			c.Standings = append(c.Standings, a.subject.touch())
		}
	}
	return c, nil
}
