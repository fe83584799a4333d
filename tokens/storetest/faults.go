package storetest

import (
	"bytes"
	"context"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// Fault is what a commit does instead of working.
type Fault int

// The faults.
const (
	// None: the commit works.
	None Fault = iota
	// Failed: nothing is stored and the error wraps tokens.ErrUnavailable.
	Failed
	// FailedButPersisted: the change is stored, and yet the error wraps
	// tokens.ErrUnavailable, as when the connection breaks before the answer.
	FailedButPersisted
	// Conflict: nothing is stored and the error is a *tokens.ConflictError that
	// names the change's first user or token, as if another node had been first.
	Conflict
)

// Inject makes the next commits end with these faults, one each; None lets one
// through.
func (m *Memory) Inject(faults ...Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range faults {
		m.faults = append(m.faults, func(*tokens.Change) Fault { return f })
	}
}

// Mend forgets the faults that no commit has met yet.
func (m *Memory) Mend() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = nil
}

// InjectFunc asks choose what the next commit ends with.
func (m *Memory) InjectFunc(choose func(*tokens.Change) Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = append(m.faults, choose)
}

// FailLoads makes the next n Loads fail with tokens.ErrUnavailable.
func (m *Memory) FailLoads(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads = n
}

// Slow makes each Load and Commit take at least d.
func (m *Memory) Slow(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slow = d
}

// Forgive ends the accusations: what must not happen is still refused, but no
// longer fails the test.
func (m *Memory) Forgive() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.quiet = true
}

// Watch looks for a plaintext seed of at least 8 bytes in all that is written
// from now on: raw, in hexadecimal and in base32, upper or lower case.
func (m *Memory) Watch(seed []byte) {
	if len(seed) < 8 {
		m.t.Helper()
		m.t.Fatalf("a seed of %d bytes would be found by chance", len(seed))
	}
	p := pattern{raw: slices.Clone(seed)}
	p.lower = append(p.lower, hex.EncodeToString(seed))
	// The last characters of base32 depend on the padding.
	encoded := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(seed))
	p.lower = append(p.lower, encoded[:len(seed)*8/5])
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seeds = append(m.seeds, p)
}

// pattern is a seed as it might show up.
type pattern struct {
	raw   []byte
	lower []string
}

func (p *pattern) in(b []byte) bool {
	if bytes.Contains(b, p.raw) {
		return true
	}
	lower := strings.ToLower(string(b))
	return slices.ContainsFunc(p.lower, func(s string) bool { return strings.Contains(lower, s) })
}

// leak says whether a plaintext seed is in what is about to be written.
func (m *Memory) leak(written ...any) bool {
	if len(m.seeds) == 0 {
		return false
	}
	var all [][]byte
	for _, w := range written {
		all = flatten(all, w)
	}
	for i := range m.seeds {
		for _, b := range all {
			if m.seeds[i].in(b) {
				return true
			}
		}
	}
	return false
}

// flatten gathers the text and bytes that a database would write.
func flatten(all [][]byte, w any) [][]byte {
	texts := func(list ...string) {
		for _, s := range list {
			all = append(all, []byte(s))
		}
	}
	switch w := w.(type) {
	case *tokens.User:
		texts(w.Realm, w.Name, w.Key)
		all = append(all, w.PINSalt, w.PINMAC)
		all = flatten(all, &w.Profile)
	case *tokens.Profile:
		texts(w.Display, w.Mail, w.External)
		for name, value := range w.Attributes {
			texts(name, value)
		}
	case *tokens.NoteWrite:
		if w.Note != nil {
			texts(*w.Note)
		}
		texts(w.Add...)
	case *tokens.Token:
		texts(w.Realm, w.Serial, w.Model, w.Hint, w.Owner, w.Wrapped.Mechanism, w.PublicID)
		all = append(all, w.Wrapped.Blob, w.Binding, w.PrivateMAC)
		all = append(all, w.Passcodes...)
		if w.Credential != nil {
			all = append(all, w.Credential.Encode())
		}
	case *tokens.Client:
		texts(w.Name, w.Realm)
		all = append(all, w.Secret)
	case *tokens.APIKey:
		texts(w.ID, w.Name, w.Realm)
		all = append(all, w.MAC[:])
	case *tokens.Batch:
		texts(w.Realm, w.Name, w.Format, w.SHA256, w.Actor)
	case *tokens.DocumentWrite:
		texts(w.Name)
		all = append(all, w.Data)
	case *tokens.Invitation:
		texts(w.ID, w.Realm, w.User, w.Actor, w.Serial)
		texts(w.Kinds...)
		all = append(all, w.MAC[:])
	case *tokens.GroupsWrite:
		texts(w.Groups...)
	case *tokens.Standing:
		for _, c := range w.Throttle {
			texts(c.Client)
		}
	case *audit.Record:
		texts(w.Action, w.Outcome, w.Realm, w.User, w.Serial, w.Actor, w.Client, w.Source, w.Reason)
		for _, f := range w.Detail {
			texts(f.Name, f.Value)
		}
	default:
		panic(fmt.Sprintf("storetest: cannot look into a %T", w))
	}
	return all
}

// leaks says whether a plaintext seed is anywhere in a change.
func (m *Memory) leaks(c *tokens.Change) bool {
	var w []any
	for i := range c.NewUsers {
		w = append(w, c.NewUsers[i].User, &tokens.GroupsWrite{Groups: c.NewUsers[i].Groups})
	}
	for i := range c.Users {
		w = append(w, &c.Users[i])
	}
	for i := range c.Standings {
		w = append(w, &c.Standings[i].Next)
	}
	for i := range c.Tokens {
		w = append(w, &c.Tokens[i].Token)
	}
	for i := range c.NewTokens {
		w = append(w, c.NewTokens[i])
	}
	for i := range c.Documents {
		w = append(w, &c.Documents[i])
	}
	for i := range c.Invites {
		w = append(w, &c.Invites[i].Invitation)
	}
	for i := range c.Groups {
		w = append(w, &c.Groups[i])
	}
	for i := range c.Profiles {
		w = append(w, &c.Profiles[i].Profile)
	}
	for i := range c.Notes {
		w = append(w, &c.Notes[i])
	}
	for i := range c.Clients {
		w = append(w, &c.Clients[i].Client)
	}
	for i := range c.Keys {
		w = append(w, &c.Keys[i].Key)
	}
	for i := range c.Publish {
		w = append(w, &c.Publish[i])
	}
	for i := range c.Records {
		w = append(w, &c.Records[i])
	}
	return m.leak(w...)
}

// accuse fails the test. It is called with m.mu held.
func (m *Memory) accuse(format string, args ...any) {
	if !m.quiet {
		m.t.Helper()
		m.t.Errorf("storetest: "+format, args...)
	}
}

// wait is the slowness that was asked for.
func (m *Memory) wait(ctx context.Context) error {
	m.mu.Lock()
	d := m.slow
	m.mu.Unlock()
	if d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", tokens.ErrUnavailable, err)
	}
	return nil
}

func unavailable(why string) error { return fmt.Errorf("%w: %s", tokens.ErrUnavailable, why) }

func exists(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{tokens.ErrExists}, args...)...)
}

// SetBack edits a token's row, as if somebody did behind everybody's back.
func (m *Memory) SetBack(realm, serial string, last int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bySerial(realm, serial).Last = last
}
