package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/store"
	"watchword/tokens/storetest"
)

// TestSQLiteIsLikeMemory and its sister do the same at random to a database
// and to the one in memory: every answer must be the same.
func TestSQLiteIsLikeMemory(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		db := openMigrated(t, sqliteURL(t))
		defer db.Close()
		walk(t, r, db)
	})
}

func TestPostgresIsLikeMemory(t *testing.T) {
	url := storetest.Postgres(t)
	db := openMigrated(t, url)
	raw := rawPostgres(t, url)
	rapid.Check(t, func(r *rapid.T) {
		if _, err := raw.Exec(`TRUNCATE users, standings, tokens, motions, batches, newcomers, grants, chains, audit, clients, api_keys,
			spent, documents, memberships, invitations, token_tags, role_grants, sessions, couriers, told`); err != nil {
			t.Fatal(err)
		}
		// What the schema begins with.
		if _, err := raw.Exec(`INSERT INTO batches (id, state, realm, name, format, sha256, actor, created, touched)
			OVERRIDING SYSTEM VALUE VALUES (0, 'published', '', '', 'enrolled', '', '', 0, 0)`); err != nil {
			t.Fatal(err)
		}
		walk(t, r, db)
	})
}

// twin is the database and the model, whose IDs differ.
type twin struct {
	*rapid.T
	db     *store.DB
	model  *storetest.Memory
	head   [2]audit.Head
	batch  [][2]int64 // ID of each batch in both
	serial []string
	clock  time.Time
}

func (w *twin) both() [2]tokens.Database { return [2]tokens.Database{w.db, w.model} }

// kind is what matters of an error.
func kind(err error) error {
	for _, k := range []error{tokens.ErrChainMoved, tokens.ErrConflict, tokens.ErrExists, tokens.ErrState, tokens.ErrNotFound,
		tokens.ErrSpent, tokens.ErrInvalid} {
		if errors.Is(err, k) {
			return k
		}
	}
	return err
}

// commit makes on each side the change that build makes of its rows.
func (w *twin) commit(what string, build func(db tokens.Database, side int) *tokens.Change) {
	w.clock = w.clock.Add(time.Second)
	var got [2]error
	for side, db := range w.both() {
		c := build(db, side)
		if c == nil {
			return
		}
		var next audit.Head
		c.Records, next = audit.Append(w.head[side], []audit.Event{{Time: w.clock, Action: what, Realm: "default", User: "ann"}})
		err := db.Commit(context.Background(), c)
		if err == nil {
			w.head[side] = next
		}
		got[side] = kind(err)
	}
	if got[0] != got[1] {
		w.Fatalf("%s: the database says %v, memory %v", what, got[0], got[1])
	}
}

func subjectOf(w *twin, db tokens.Database, ref tokens.Ref) *tokens.Subject {
	view, err := db.Load(context.Background(), []tokens.Ref{ref})
	if err != nil {
		w.Fatal(err)
	}
	return view.Subjects[0]
}

func walk(t *testing.T, r *rapid.T, db *store.DB) {
	model := storetest.NewMemory(t)
	model.Forgive()
	w := &twin{T: r, db: db, model: model, clock: time.Unix(1_800_000_000, 0).UTC()}
	for side, db := range w.both() {
		id, _, err := db.MintChain(context.Background())
		if err != nil {
			r.Fatal(err)
		}
		w.head[side] = audit.Head{Chain: id}
	}
	users := []string{"ann", "ben", "cy", "Ünal"}
	for i := range 6 {
		w.serial = append(w.serial, fmt.Sprintf("S%d", i))
	}
	user := rapid.SampledFrom(users)
	serial := rapid.SampledFrom(w.serial)
	// off is how far a version that is said is from the true one.
	off := rapid.SampledFrom([]int64{0, 0, 0, 0, 1, -1})
	ref := func(name string) tokens.Ref { return tokens.Ref{Realm: "default", User: name} }

	r.Repeat(map[string]func(*rapid.T){
		"newUser": func(r *rapid.T) {
			name, profile, due := user.Draw(r, "user"), drawProfile(r), rapid.Bool().Draw(r, "due")
			w.commit("user.add", func(tokens.Database, int) *tokens.Change {
				return &tokens.Change{NewUsers: []tokens.NewUser{{User: &tokens.User{
					Realm: "default", Name: name, Key: name, State: tokens.UserEnabled, PINDue: due, Created: w.clock, Profile: profile,
				}}}}
			})
		},
		"profiles": func(r *rapid.T) { // of several at once, who may exchange their ids
			names := rapid.SliceOfNDistinct(user, 1, 3, rapid.ID[string]).Draw(r, "users")
			wrong, due, fresh := off.Draw(r, "off"), rapid.Bool().Draw(r, "due"), user.Draw(r, "new")
			var profiles []tokens.Profile
			for range names {
				profiles = append(profiles, drawProfile(r))
			}
			addsOne, added := rapid.Bool().Draw(r, "adds one"), drawProfile(r)
			w.commit("user.edit", func(db tokens.Database, _ int) *tokens.Change {
				c := &tokens.Change{}
				for i, name := range names {
					s := subjectOf(w, db, ref(name))
					if s == nil {
						continue
					}
					write := move(s)[0]
					if i == 0 && write.Expect+wrong >= 1 {
						write.Expect, write.Next.Version = write.Expect+wrong, write.Next.Version+wrong
					}
					c.Standings = append(c.Standings, write)
					c.Profiles = append(c.Profiles, tokens.ProfileWrite{UserID: s.User.ID, Profile: profiles[i]})
					u := *s.User
					u.PINDue = due
					c.Users = append(c.Users, u)
				}
				if addsOne {
					c.NewUsers = []tokens.NewUser{{User: &tokens.User{Realm: "default", Name: fresh, Key: fresh, State: tokens.UserEnabled, Created: w.clock, Profile: added}}}
				}
				return c
			})
		},
		"notes": func(r *rapid.T) {
			list := rapid.SliceOfNDistinct(serial, 1, 3, rapid.ID[string]).Draw(r, "serials")
			tag := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 2)
			var writes []tokens.NoteWrite
			for range list {
				n := tokens.NoteWrite{Add: tag.Draw(r, "add"), Drop: tag.Draw(r, "drop")}
				if text := rapid.SampledFrom([]string{"none", "", "one", "two"}).Draw(r, "note"); text != "none" {
					n.Note = &text
				}
				writes = append(writes, n)
			}
			w.commit("token.note", func(db tokens.Database, side int) *tokens.Change {
				c := &tokens.Change{}
				for i, serial := range list {
					n := writes[i]
					if s := subjectOf(w, db, tokens.Ref{Realm: "default", Serial: serial}); s != nil {
						n.TokenID = s.Tokens[slices.IndexFunc(s.Tokens, func(t tokens.Token) bool { return t.Serial == serial })].ID
					} else {
						n.TokenID = 1<<40 + int64(i)
					}
					c.Notes = append(c.Notes, n)
				}
				slices.Reverse(c.Notes)
				return c
			})
		},
		"passcodes": func(r *rapid.T) {
			what, owner, wrong := serial.Draw(r, "serial"), user.Draw(r, "user"), off.Draw(r, "off")
			typ := rapid.SampledFrom([]tokens.Type{tokens.Recovery, tokens.Temporary, tokens.TOTP}).Draw(r, "type")
			n, uses, size := rapid.IntRange(0, 3).Draw(r, "codes"), rapid.IntRange(0, 3).Draw(r, "uses"), rapid.SampledFrom([]int{32, 32, 32, 31}).Draw(r, "size")
			expires := drawTime(w, r)
			w.commit("user.passcode", func(db tokens.Database, _ int) *tokens.Change {
				s := subjectOf(w, db, ref(owner))
				if s == nil {
					return &tokens.Change{}
				}
				t := tokens.Token{
					Realm: "default", Serial: what, Type: typ, State: tokens.Active, OwnerID: s.User.ID, Created: w.clock,
					Uses: uses, Expires: expires, Assigned: expires, Binding: []byte{7},
				}
				for i := range n {
					t.Passcodes = append(t.Passcodes, bytes.Repeat([]byte{byte(i)}, size))
				}
				c := &tokens.Change{Standings: move(s), NewTokens: []*tokens.Token{&t}}
				c.Standings[0].Expect = max(1, s.Version+wrong)
				c.Standings[0].Next.Version = c.Standings[0].Expect + 1
				return c
			})
		},
		"undo": func(r *rapid.T) {
			if len(w.batch) == 0 {
				r.Skip()
			}
			ids := rapid.SampledFrom(w.batch).Draw(r, "batch")
			var got [2]string
			for side, db := range w.both() {
				n, last, err := db.Remove(context.Background(), ids[side], 0, 10, w.clock)
				tally, terr := db.Tally(context.Background(), ids[side])
				got[side] = fmt.Sprint(n, last == 0, kind(err), tally, terr)
			}
			if got[0] != got[1] {
				r.Fatalf("Remove: the database says %s, memory %s", got[0], got[1])
			}
		},
		"begin": func(r *rapid.T) {
			var ids [2]int64
			for side, db := range w.both() {
				var err error
				if ids[side], err = db.Begin(context.Background(), tokens.Batch{Realm: "default", Created: w.clock}); err != nil {
					r.Fatal(err)
				}
			}
			w.batch = append(w.batch, ids)
		},
		"stage": func(r *rapid.T) {
			if len(w.batch) == 0 {
				r.Skip()
			}
			ids := rapid.SampledFrom(w.batch).Draw(r, "batch")
			var list []tokens.Token
			for _, s := range rapid.SliceOfN(serial, 1, 4).Draw(r, "serials") {
				t := sampleToken(s)
				t.Created, t.Last, t.Expires = w.clock, rapid.Int64Range(-1, 3).Draw(r, "last"), drawTime(w, r)
				list = append(list, t)
			}
			var got [2]string
			for side, db := range w.both() {
				created, err := db.Stage(context.Background(), ids[side], list)
				got[side] = fmt.Sprint(created, kind(err))
			}
			if got[0] != got[1] {
				r.Fatalf("Stage: the database says %s, memory %s", got[0], got[1])
			}
		},
		"publish": func(r *rapid.T) {
			if len(w.batch) == 0 {
				r.Skip()
			}
			ids := rapid.SampledFrom(w.batch).Draw(r, "batch")
			w.commit("import.publish", func(_ tokens.Database, side int) *tokens.Change {
				return &tokens.Change{Publish: []tokens.Batch{{ID: ids[side], Published: w.clock, Tokens: 3}}}
			})
		},
		"discard": func(r *rapid.T) {
			if len(w.batch) == 0 {
				r.Skip()
			}
			ids := rapid.SampledFrom(w.batch).Draw(r, "batch")
			var got [2]error
			for side, db := range w.both() {
				got[side] = kind(db.Discard(context.Background(), ids[side]))
			}
			if got[0] != got[1] {
				r.Fatalf("Discard: the database says %v, memory %v", got[0], got[1])
			}
		},
		"attempts": func(r *rapid.T) { // what a batch of verifications does
			names := rapid.SliceOfNDistinct(user, 1, 3, rapid.ID[string]).Draw(r, "users")
			wrong := off.Draw(r, "off")
			fails := rapid.IntRange(0, 3).Draw(r, "failures")
			last := rapid.Int64Range(-1, 8).Draw(r, "last")
			spends := w.spends(r)
			w.commit("verify", func(db tokens.Database, _ int) *tokens.Change {
				c := &tokens.Change{Spends: spends}
				for i, name := range names {
					s := subjectOf(w, db, ref(name))
					if s == nil {
						continue
					}
					next := tokens.Standing{Version: s.Version + 1, Failures: fails, Locked: fails > 2}
					if fails > 0 {
						next.Throttle = []tokens.ClientFailures{{Client: "vpn", Failures: fails, Last: 7}}
					}
					expect := s.Version
					if i == 0 && expect+wrong >= 1 {
						expect += wrong
						next.Version += wrong
					}
					c.Standings = append(c.Standings, tokens.StandingWrite{UserID: s.User.ID, Expect: expect, Next: next})
					if len(s.Tokens) > 0 {
						c.Motions = append(c.Motions, tokens.MotionWrite{TokenID: s.Tokens[0].ID, UserID: s.User.ID, Last: last, Drift: fails, UsedAt: 5})
					}
				}
				slices.Reverse(c.Standings)
				return c
			})
		},
		"give": func(r *rapid.T) { // assign, unassign, move, revoke
			to, what, wrong := user.Draw(r, "user"), serial.Draw(r, "serial"), off.Draw(r, "off")
			state := rapid.SampledFrom([]tokens.State{tokens.Active, tokens.Active, tokens.Imported, tokens.Lost, tokens.Revoked}).Draw(r, "state")
			expires, says, at := drawTime(w, r), rapid.Bool().Draw(r, "says when"), drawTime(w, r)
			moves, last := rapid.Bool().Draw(r, "moves"), rapid.Int64Range(-1, 8).Draw(r, "last")
			w.commit("token.assign", func(db tokens.Database, _ int) *tokens.Change {
				s := subjectOf(w, db, tokens.Ref{Realm: "default", Serial: what})
				if s == nil {
					return &tokens.Change{}
				}
				i := slices.IndexFunc(s.Tokens, func(t tokens.Token) bool { return t.Serial == what })
				t := s.Tokens[i]
				c := &tokens.Change{}
				owner := subjectOf(w, db, ref(to))
				for _, who := range []*tokens.Subject{s, owner} {
					if who != nil && who.User != nil && !slices.ContainsFunc(c.Standings, func(o tokens.StandingWrite) bool { return o.UserID == who.User.ID }) {
						next := who.Standing
						next.Version++
						c.Standings = append(c.Standings, tokens.StandingWrite{UserID: who.User.ID, Expect: who.Version, Next: next})
					}
				}
				t.State, t.OwnerID = state, 0
				if state != tokens.Imported && owner != nil {
					t.OwnerID = owner.User.ID
				}
				if state == tokens.Revoked {
					t.Wrapped.Blob = nil
				}
				t.Expires = expires
				c.Tokens = []tokens.TokenWrite{{Token: t, Expect: max(1, t.Version+wrong)}}
				if says {
					c.Tokens[0].Assigned = &at
				}
				if moves {
					m := tokens.MotionWrite{TokenID: t.ID, UserID: t.OwnerID, Last: last}
					if s.User != nil {
						m.UserID = s.User.ID // the old owner's, rather than the new one's
					}
					c.Motions = []tokens.MotionWrite{m}
				}
				return c
			})
		},
		"resyncUnowned": func(r *rapid.T) {
			what, wrong, last := serial.Draw(r, "serial"), off.Draw(r, "off"), rapid.Int64Range(-1, 8).Draw(r, "last")
			w.commit("token.resync", func(db tokens.Database, _ int) *tokens.Change {
				s := subjectOf(w, db, tokens.Ref{Realm: "default", Serial: what})
				if s == nil || s.User != nil {
					return &tokens.Change{}
				}
				t := s.Tokens[0]
				return &tokens.Change{Motions: []tokens.MotionWrite{{TokenID: t.ID, Expect: t.Version + wrong, Last: last, UsedAt: 9}}}
			})
		},
		"registry": func(r *rapid.T) {
			name := rapid.SampledFrom([]string{"vpn", "web"}).Draw(r, "client")
			remove, replace := rapid.Bool().Draw(r, "delete"), rapid.Bool().Draw(r, "replace")
			prefix := rapid.SampledFrom(prefixes).Draw(r, "prefix")
			w.commit("client.put", func(tokens.Database, int) *tokens.Change {
				return &tokens.Change{Clients: []tokens.ClientWrite{{
					Client: tokens.Client{Name: name, Prefix: prefix, Secret: []byte{1}}, Delete: remove, Replace: replace,
				}}}
			})
		},
		"enrol": func(r *rapid.T) {
			what, wrong, spends := serial.Draw(r, "serial"), off.Draw(r, "off"), w.spends(r)
			key, owner := rapid.IntRange(0, 3).Draw(r, "credential"), user.Draw(r, "user")
			realm := rapid.SampledFrom([]string{"default", "default", "abroad"}).Draw(r, "realm")
			w.commit("key.enrol", func(db tokens.Database, _ int) *tokens.Change {
				t := sampleToken(what)
				t.Realm, t.State, t.Created = realm, tokens.Pending, w.clock
				if key > 0 {
					t = sampleKey(what, &tokens.User{})
					t.Realm, t.Created, t.Credential.ID = realm, w.clock, []byte{byte(key)}
				}
				c := &tokens.Change{NewTokens: []*tokens.Token{&t}, Spends: spends}
				if s := subjectOf(w, db, ref(owner)); s != nil {
					t.OwnerID = s.User.ID
					c.Standings = move(s)
					c.Standings[0].Expect = max(1, s.Version+wrong)
					c.Standings[0].Next.Version = c.Standings[0].Expect + 1
				}
				return c
			})
		},
		"expire": func(r *rapid.T) {
			before := w.clock.Add(time.Duration(rapid.IntRange(-5, 5).Draw(r, "before")) * time.Second)
			before = before.AddDate(0, 0, rapid.SampledFrom([]int{0, 30}).Draw(r, "days"))
			var got [2]int
			for side, db := range w.both() {
				var err error
				if got[side], err = db.Expire(context.Background(), before); err != nil {
					r.Fatal(err)
				}
			}
			if got[0] != got[1] {
				r.Fatalf("Expire: the database says %d, memory %d", got[0], got[1])
			}
		},
		"document": func(r *rapid.T) {
			d := tokens.DocumentWrite{
				Name: rapid.SampledFrom(documents).Draw(r, "name"), Expect: rapid.Int64Range(0, 3).Draw(r, "expect"), Updated: w.clock,
				Data: rapid.SampledFrom([][]byte{nil, {}, {1}, {2, 0}}).Draw(r, "data"),
			}
			w.commit("document.put", func(tokens.Database, int) *tokens.Change {
				return &tokens.Change{Documents: []tokens.DocumentWrite{d}}
			})
		},
		"groups": func(r *rapid.T) {
			name, groups := user.Draw(r, "user"), rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "é"}), 0, 3).Draw(r, "groups")
			w.commit("user.groups", func(db tokens.Database, _ int) *tokens.Change {
				s := subjectOf(w, db, ref(name))
				if s == nil {
					return &tokens.Change{}
				}
				return &tokens.Change{Standings: move(s), Groups: []tokens.GroupsWrite{{UserID: s.User.ID, Groups: groups}}}
			})
		},
		"invitation": func(r *rapid.T) {
			name := user.Draw(r, "user")
			for _, what := range rapid.SliceOfN(rapid.SampledFrom([]string{"make", "use", "delete"}), 1, 4).Draw(r, "acts") {
				id := rapid.SampledFrom(invitations).Draw(r, "id")
				expires := rapid.IntRange(0, 5).Draw(r, "expires")
				w.commit("invitation", func(db tokens.Database, _ int) *tokens.Change {
					write := tokens.InvitationWrite{Use: what == "use", Delete: what == "delete", Invitation: tokens.Invitation{ID: id}}
					v := &write.Invitation
					switch what {
					case "use":
						v.Used, v.Serial = w.clock, "S1"
					case "make":
						v.Realm, v.User, v.UserID, v.Kinds = "default", name, 1<<40, []string{"fido"}
						v.Created, v.Expires = w.clock, w.clock.Add(time.Duration(expires)*time.Second)
						if s := subjectOf(w, db, ref(name)); s != nil {
							v.UserID = s.User.ID
						}
					}
					return &tokens.Change{Invites: []tokens.InvitationWrite{write}}
				})
			}
		},
		"": func(r *rapid.T) { w.compare(users) },
	})
}

// drawProfile is mostly one that others have, too.
func drawProfile(r *rapid.T) tokens.Profile {
	p := tokens.Profile{External: rapid.SampledFrom([]string{"", "x", "y", "z"}).Draw(r, "external")}
	if rapid.Bool().Draw(r, "attributes") {
		p.Mail, p.Attributes = "a@b.example", map[string]string{"a": p.External, "b": "é\n"}
	}
	return p
}

// drawTime is mostly none.
func drawTime(w *twin, r *rapid.T) time.Time {
	if n := rapid.IntRange(-3, 3).Draw(r, "when"); n > 0 {
		return w.clock.Add(time.Duration(n) * time.Hour)
	}
	return time.Time{}
}

var (
	documents   = []string{"fido.mds", "fido.rules"}
	invitations = []string{"i1", "i2"}
)

// spends are a few things to spend, mostly none.
func (w *twin) spends(r *rapid.T) []tokens.Spend {
	var list []tokens.Spend
	for _, thing := range rapid.SliceOfN(rapid.ByteRange(1, 9), 0, 3).Draw(r, "spends") {
		list = append(list, tokens.Spend{Hash: [32]byte{thing}, Expires: w.clock.Add(time.Duration(thing) * time.Second)})
	}
	return list
}

// compare looks at everything on both sides.
func (w *twin) compare(users []string) {
	ctx := context.Background()
	var seen [2]string
	for side, db := range w.both() {
		batches := make(map[int64]int)
		for i, ids := range w.batch {
			batches[ids[side]] = i
		}
		say := func(v ...any) { seen[side] += fmt.Sprintln(v...) }
		token := func(t tokens.Token) string {
			return fmt.Sprint(t.Serial, t.State, t.Owner, batches[t.Batch], t.Wrapped, t.Binding, t.Motion, t.Created, t.Batch == 0, credentialOf(&t),
				t.Expires, t.Assigned, t.Note, t.Tags, t.Passcodes, t.Uses)
		}
		var refs []tokens.Ref
		for _, name := range users {
			refs = append(refs, tokens.Ref{Realm: "default", User: name})
		}
		for _, serial := range w.serial {
			refs = append(refs, tokens.Ref{Realm: "default", Serial: serial})
		}
		for key := range byte(5) {
			refs = append(refs, tokens.Ref{Realm: "default", Credential: tokens.CredentialKey("login.example", []byte{key})})
		}
		view, err := db.Load(ctx, refs)
		if err != nil {
			w.Fatal(err)
		}
		// The databases number tokens as they were staged, but not without gaps.
		for i, s := range view.Subjects {
			if s == nil {
				say(i, "nobody")
				continue
			}
			say(i, slices.Index(view.Subjects, s), s.Standing)
			if s.User != nil {
				say(s.User.Key, s.User.State, s.User.Created, s.User.PINDue, s.User.Profile)
			}
			for _, t := range s.Tokens {
				say(token(t))
			}
		}
		list, _, err := db.Tokens(ctx, tokens.TokenQuery{Realm: "default", Limit: 100})
		say(err)
		for _, t := range list {
			say(token(t))
		}
		entries, _, err := db.Users(ctx, tokens.UserQuery{Limit: 100})
		say(err)
		for _, u := range entries {
			say(u.Key, u.Standing, u.Tokens, u.PINDue, u.Profile)
		}
		registry, err := db.Registry(ctx)
		say(registry.Clients, registry.Generation-view.Generation, err)
		for _, typ := range []tokens.Type{tokens.TOTP, tokens.FIDO} {
			list, _, err := db.Tokens(ctx, tokens.TokenQuery{Type: typ, Limit: 100})
			say(typ, len(list), err)
		}
		imports, err := db.Batches(ctx, tokens.BatchQuery{Limit: 100})
		say(err)
		for _, b := range imports {
			say(batches[b.ID], b.Tokens)
		}
		for _, name := range documents {
			d, err := db.Document(ctx, name)
			say(d, kind(err))
		}
		for i, name := range users {
			if s := view.Subjects[i]; s != nil {
				groups, err := db.Groups(ctx, s.User.ID)
				say(name, groups, err)
			}
		}
		kept, err := db.Invitations(ctx, "default", "", 100)
		say(err)
		for _, v := range kept {
			one, err := db.Invitation(ctx, v.ID)
			say(v.ID, v.User, v.Kinds, v.Created, v.Expires, v.Used, v.Serial, one.UserID == v.UserID, one.Used, err)
		}
		present, err := db.Present(ctx, "default", w.serial)
		say(err)
		for _, p := range present {
			say(p.There, p.Staging != 0, batches[p.Staging])
		}
		records, _, err := db.Records(ctx, tokens.RecordQuery{User: "ann", Limit: 1000})
		say(err)
		for _, r := range records {
			say(r.Seq, r.Time, r.Action)
		}
	}
	if seen[0] != seen[1] {
		w.Fatalf("the database shows\n%s\nmemory shows\n%s", seen[0], seen[1])
	}
}

// credentialOf is what is the same on both sides of a token's credential.
func credentialOf(t *tokens.Token) string {
	if t.Credential == nil {
		return "none"
	}
	return fmt.Sprint(t.Credential.ID, t.Credential.RPID, t.Credential.PublicKey, t.Credential.Format)
}
