package store

import (
	"context"

	"watchword/tokens"
)

// Load implements tokens.Store.
func (db *DB) Load(ctx context.Context, refs []tokens.Ref) (tokens.View, error) {
	view, err := db.engine.load(ctx, refs)
	return view, failed("reading users", err)
}

// Recall implements tokens.Store.
func (db *DB) Recall(ctx context.Context, refs []tokens.Ref) (tokens.View, error) {
	view, err := db.engine.recall(ctx, refs)
	return view, failed("reading users", err)
}

// Confirm implements tokens.Store.
func (db *DB) Confirm(ctx context.Context, c *tokens.Change) error {
	return failed("looking at users again", db.engine.confirm(ctx, c))
}

// subjects gathers rows into subjects, each user once.
type subjects struct {
	view  tokens.View
	users map[int64]*tokens.Subject
	alone map[int64]*tokens.Subject // unassigned tokens
}

func newSubjects(refs int) *subjects {
	return &subjects{
		view:  tokens.View{Subjects: make([]*tokens.Subject, refs)},
		users: make(map[int64]*tokens.Subject, refs),
	}
}

// loadColumns are the columns of a row of Load: a user, if any, the user's
// standing, and one token, if any.
const (
	loadColumns = userColumns + ", " + standingColumns + ", " + tokenColumns
	loadOwned   = userColumns + ", " + standingColumns + ", " + ownedColumns
	loadWidth   = userWidth + standingWidth + tokenWidth
)

// add takes a row for the ref at position n; the fields stand at the first
// column of loadColumns. Rows come in order of the token's ID.
func (s *subjects) add(n int, f *fields) {
	user := f.values[f.next]
	token := f.values[f.next+userWidth+standingWidth]
	if user == nil {
		if token != nil {
			s.addAlone(n, f)
		}
		return
	}
	id := user.(int64)
	subject, known := s.users[id]
	if !known {
		u := f.user()
		subject = &tokens.Subject{User: &u, Standing: f.standing()}
		s.users[id] = subject
	} else {
		f.next += userWidth + standingWidth
	}
	s.view.Subjects[n] = subject
	if token == nil {
		return
	}
	// Two refs to one user bring the same rows twice.
	if k := len(subject.Tokens); k > 0 && subject.Tokens[k-1].ID >= token.(int64) {
		return
	}
	subject.Tokens = append(subject.Tokens, f.token())
}

func (s *subjects) addAlone(n int, f *fields) {
	f.next += userWidth + standingWidth
	t := f.token()
	subject, known := s.alone[t.ID]
	if !known {
		if s.alone == nil {
			s.alone = make(map[int64]*tokens.Subject)
		}
		subject = &tokens.Subject{Tokens: []tokens.Token{t}}
		s.alone[t.ID] = subject
	}
	s.view.Subjects[n] = subject
}
