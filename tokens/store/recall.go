package store

import (
	"slices"
	"sync"
	"time"

	"watchword/tokens"
)

// A recollection is what a database said of users the last times that attempts on
// them were decided, kept up to date with every commit. With SQLite this process
// is the only one that writes, so that what it remembers is what is stored; should
// another program have written all the same, the next commit notices, makes nothing
// and has everything forgotten. With PostgreSQL see recall_postgres.go.
//
// It may lag behind for a moment: between a commit and its being noted here, and
// when a reading that began before a commit is noted after it. Who decides on it
// must have the outcome held against the stored version by Commit.
type recollection struct {
	mu         sync.Mutex
	users      map[name]*tokens.Subject // nobody else has one of these
	names      map[int64]name           // of users
	weight     int                      // of users: see weigh
	strangers  map[name]struct{}        // names that are no user's
	generation int64
	checked    time.Time     // when a commit last found that nobody else has written; with PostgreSQL, when all was forgotten
	lasts      time.Duration // how long that is good

	// Each time that somebody else may have written an era begins: what was decided
	// on the memory of another one is not made.
	era     uint64
	writer  any   // the connection of the last commit
	version int64 // SQLite's data_version then, which is that connection's own

	// A reading that began before something was written must not be noted after
	// it: what was written when, counted in writes.
	writes  uint64
	moved   map[int64]uint64 // users that moved, since forgotten
	emptied uint64           // the last write that had everything forgotten
}

const (
	// maxRecalled is how many users and tokens are remembered, and how many moves.
	// A user with one token takes about a kilobyte.
	maxRecalled = 65536
	// maxStrangers is how many names that are nobody's are remembered: so that
	// they are answered as quickly as others, but do not fill the memory.
	maxStrangers = 4096
	// recallFor is how long what is remembered is good without a commit that
	// looks whether another program has written.
	recallFor = time.Second
)

// byName says whether a ref asks by what is remembered.
func byName(r *tokens.Ref) bool { return r.Serial == "" && r.Credential == "" }

// writing is how many writes there were: before a reading begins.
func (r *recollection) writing() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.writes
}

// recall fills in the subjects of refs that it remembers, with the generation, and
// answers the positions of all others.
func (r *recollection) recall(refs []tokens.Ref, view *tokens.View) (rest []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	view.Generation, view.Recalled = r.generation, r.era
	good := time.Since(r.checked) < r.lasts
	var found map[*tokens.Subject]*tokens.Subject
	for i := range refs {
		ref := &refs[i]
		n := name{ref.Realm, ref.User}
		if !good || !byName(ref) {
			rest = append(rest, i)
			continue
		}
		known := r.users[n]
		if known == nil {
			if _, nobody := r.strangers[n]; !nobody {
				rest = append(rest, i)
			}
			continue
		}
		// The same subject is the same pointer.
		mine := found[known]
		if mine == nil {
			mine = copied(known)
			if len(refs) > 1 {
				if found == nil {
					found = make(map[*tokens.Subject]*tokens.Subject, len(refs))
				}
				found[known] = mine
			}
		}
		view.Subjects[i] = mine
	}
	if len(rest) == len(refs) {
		view.Recalled = 0
	}
	return rest
}

// copied is a subject whose standing, and whose tokens' states and motions, may be
// changed.
func copied(s *tokens.Subject) *tokens.Subject {
	return &tokens.Subject{User: s.User, Standing: s.Standing, Tokens: slices.Clone(s.Tokens)}
}

// weigh is what a subject takes of maxRecalled.
func weigh(s *tokens.Subject) int { return 1 + len(s.Tokens) }

// note remembers what a reading found that began after so many writes.
func (r *recollection) note(writes uint64, refs []tokens.Ref, view *tokens.View) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.emptied > writes {
		return
	}
	r.generation = view.Generation
	for i := range refs {
		ref, s := &refs[i], view.Subjects[i]
		n := name{ref.Realm, ref.User}
		switch {
		case !byName(ref):
		case s == nil:
			for old := range r.strangers { // any
				if len(r.strangers) < maxStrangers {
					break
				}
				delete(r.strangers, old)
			}
			r.strangers[n] = struct{}{}
		case r.moved[s.User.ID] > writes:
		default:
			r.drop(s.User.ID)
			for id := range r.names { // any
				if r.weight+weigh(s) <= maxRecalled {
					break
				}
				r.drop(id)
			}
			kept := copied(s)
			user := *s.User
			kept.User = &user
			r.users[n], r.names[s.User.ID] = kept, n
			r.weight += weigh(s)
		}
	}
}

// follow brings what is remembered to where a commit of attempts has brought it.
func (r *recollection) follow(p *plan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes++
	for i := range p.standings {
		w := &p.standings[i]
		r.move(w.UserID)
		n, known := r.names[w.UserID]
		if !known {
			continue
		}
		was := r.users[n]
		if was.Version != w.Expect {
			r.drop(w.UserID)
			continue
		}
		was.Standing = w.Next
	}
	for i := range p.owned {
		w := &p.owned[i]
		n, known := r.names[w.UserID]
		if !known {
			continue
		}
		list, k := r.users[n].Tokens, 0
		for k < len(list) && list[k].ID != w.TokenID {
			k++
		}
		if k == len(list) {
			r.drop(w.UserID)
			continue
		}
		m := &list[k].Motion
		m.Last, m.Drift, m.UsedAt = w.Last, w.Drift, w.UsedAt
	}
}

// move notes that a user moved.
func (r *recollection) move(user int64) {
	if len(r.moved) >= maxRecalled {
		clear(r.moved)
		r.emptied = r.writes // no reading that began before is noted
	}
	r.moved[user] = r.writes
}

func (r *recollection) drop(user int64) {
	if n, known := r.names[user]; known {
		r.weight -= weigh(r.users[n])
		delete(r.users, n)
		delete(r.names, user)
	}
}

// forget forgets users.
func (r *recollection) forget(users []int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range users {
		r.drop(id)
	}
}

// empty forgets everything: something else was written than attempts, or nobody
// knows what.
func (r *recollection) empty() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
}

func (r *recollection) clear() {
	r.writes++
	r.emptied = r.writes
	r.checked = time.Time{}
	r.users, r.names, r.weight = make(map[name]*tokens.Subject), make(map[int64]name), 0
	r.strangers, r.moved = make(map[name]struct{}), make(map[int64]uint64)
}

// check takes SQLite's data_version, as the writer's connection has it in its
// transaction: it changes when someone else has written. Then everything is
// forgotten, and also where it is another connection than the last time, of which
// nobody can tell. It answers whether what was decided on a View with that Recalled
// may have been decided on what was not so any more.
func (r *recollection) check(writer any, version int64, recalled uint64) (stale bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.writer != writer || r.version != version {
		r.clear()
		r.era++
	}
	r.writer, r.version, r.checked = writer, version, time.Now()
	return recalled != 0 && recalled != r.era
}
