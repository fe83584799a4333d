package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
	"watchword/tokens/store"
	"watchword/tokens/storetest"
)

// uncertain is a database whose commits fail now and then, before the deed or after it.
type uncertain struct {
	*store.DB
	often atomic.Int64 // one of so many fails; zero: none
}

func (d *uncertain) Commit(ctx context.Context, c *tokens.Change) error {
	n := d.often.Load()
	if n == 0 || rand.Int64N(n) != 0 {
		return d.DB.Commit(ctx, c)
	}
	if rand.IntN(2) == 0 {
		return fmt.Errorf("%w: injected before the commit", tokens.ErrUnavailable)
	}
	return errors.Join(d.DB.Commit(ctx, c), fmt.Errorf("%w: injected after the commit", tokens.ErrUnavailable))
}

// editors is an installation whose policies are edited on all nodes at once, and what
// is known of every version.
type editors struct {
	t     testing.TB
	url   string
	keys  *hsmtest.Memory
	nodes []*editorNode
	admin tokens.Principal
	probe tokens.Principal // whom policies forbid to list users

	floor   atomic.Int64            // no node may decide by an older version any more
	sources map[int64]policy.Source // of every version
	last    int64
	counter int
}

type editorNode struct {
	*tokens.Service
	db *uncertain
}

func newEditors(t testing.TB, url string, nodes int) *editors {
	x := &editors{t: t, url: url, keys: hsmtest.NewMemory(t), sources: map[int64]policy.Source{0: {}}}
	var first firsts
	for range nodes {
		x.nodes = append(x.nodes, x.start(&first, nodes == 1))
	}
	var err error
	if x.admin, err = x.nodes[0].Authenticate(ctx, first.key); err != nil {
		t.Fatal(err)
	}
	_, text, err := x.nodes[0].AddKey(ctx, x.admin, tokens.NewKey{Name: "probe", Scope: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	if x.probe, err = x.nodes[0].Authenticate(ctx, text); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, n := range x.nodes {
			n.db.often.Store(0)
			if err := n.Close(ctx); err != nil {
				t.Error(err)
			}
			n.db.Close()
		}
	})
	return x
}

func (x *editors) start(f *firsts, alone bool) *editorNode {
	x.t.Helper()
	db, err := store.Open(ctx, x.url, store.Options{})
	if err != nil {
		x.t.Fatal(err)
	}
	n := &editorNode{db: &uncertain{DB: db}}
	if n.Service, err = tokens.Open(ctx, tokens.Config{Database: n.db, Custody: x.keys, Exclusive: alone}, x.keys, f); err != nil {
		x.t.Fatal(err)
	}
	return n
}

// crash takes a node's database away, and starts another in its place.
func (x *editors) crash(i int) {
	x.t.Helper()
	old := x.nodes[i]
	old.db.Close()
	ending, cancel := context.WithTimeout(ctx, 5*time.Second)
	_ = old.Close(ending) // it cannot write its end any more
	cancel()
	x.nodes[i] = x.start(&firsts{}, len(x.nodes) == 1)
}

// policyOp is an edit, or, with back, a roll-back to a version.
type policyOp struct {
	node   int
	edit   tokens.PolicyEdit
	back   bool
	to     int64 // the version it goes back to
	expect int64

	set  tokens.PolicySet
	err  error
	done bool // its answer says so
}

func (o *policyOp) run(x *editors) {
	n := x.nodes[o.node]
	if o.back {
		o.set, o.err = n.RollBackPolicies(ctx, x.admin, o.to)
	} else {
		o.set, o.err = n.PutPolicies(ctx, x.admin, o.expect, o.edit)
	}
	if o.done = o.err == nil; !o.done {
		return
	}
	for { // from now on
		f := x.floor.Load()
		if o.set.Version <= f || x.floor.CompareAndSwap(f, o.set.Version) {
			return
		}
	}
}

// after is the document that the op makes of one, written anew here; false if it can
// make none.
func (o *policyOp) after(x *editors, was policy.Source) (policy.Source, bool) {
	if o.back {
		src, ok := x.sources[o.to]
		return src, ok
	}
	next := policy.Source{}
	ok := true
	next.Policies = afterEdit(was.Policies, o.edit.Put, o.edit.Delete, func(i policy.Item) string { return i.ID }, &ok)
	next.Templates = afterEdit(was.Templates, o.edit.PutTemplates, o.edit.DeleteTemplates, func(i policy.Item) string { return i.ID }, &ok)
	next.Links = afterEdit(was.Links, o.edit.PutLinks, o.edit.DeleteLinks, func(l policy.Link) string { return l.ID }, &ok)
	for _, l := range next.Links {
		ok = ok && slices.ContainsFunc(next.Templates, func(t policy.Item) bool { return t.ID == l.Template })
	}
	return next, ok
}

func afterEdit[T any](was, put []T, gone []string, id func(T) string, ok *bool) []T {
	all := map[string]T{}
	for _, x := range was {
		all[id(x)] = x
	}
	for _, name := range gone {
		if _, there := all[name]; !there {
			*ok = false
		}
		delete(all, name)
	}
	for _, x := range put {
		all[id(x)] = x
	}
	var list []T
	for _, x := range all {
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b T) int { return strings.Compare(id(a), id(b)) })
	return list
}

func sameDocument(a, b policy.Source) bool {
	same := func(a, b any) bool {
		return reflect.ValueOf(a).Len() == 0 && reflect.ValueOf(b).Len() == 0 || reflect.DeepEqual(a, b)
	}
	return same(a.Policies, b.Policies) && same(a.Templates, b.Templates) && same(a.Links, b.Links)
}

// forbidding are the ids of a document that forbid the probe to list users, as a
// decision names them.
func forbidding(src policy.Source) string {
	var ids []string
	for _, i := range src.Policies {
		if strings.Contains(i.Text, "user.list") {
			ids = append(ids, i.ID)
		}
	}
	for _, l := range src.Links {
		for _, t := range src.Templates {
			if t.ID == l.Template && strings.Contains(t.Text, "user.list") {
				ids = append(ids, l.ID)
			}
		}
	}
	slices.Sort(ids)
	return strings.Join(ids, ", ")
}

// seenDecision is what a node decided, and between which versions it had to.
type seenDecision struct {
	node  int
	floor int64
	by    string // ids, of who forbade it
}

// ask has a node decide whether the probe lists users; false if it could not.
func (x *editors) ask(node int) (seenDecision, bool) {
	d := seenDecision{node: node, floor: x.floor.Load()}
	err := x.nodes[node].Allow(ctx, x.probe, policy.UserList, audit.Event{Realm: tokens.DefaultRealm})
	switch {
	case err == nil:
	case errors.Is(err, tokens.ErrForbidden):
		_, why, _ := strings.Cut(err.Error(), "(polic")
		why = strings.TrimPrefix(strings.TrimPrefix(why, "y "), "ies ")
		d.by, _, _ = strings.Cut(why, " forbid")
	case errors.Is(err, tokens.ErrUnavailable):
		return d, false
	default:
		x.t.Errorf("the probe: %v", err)
		return d, false
	}
	return d, true
}

// draw draws an op on documents of a few policies, templates and links.
func (x *editors) draw(t *rapid.T, node int) *policyOp {
	o := &policyOp{node: node, expect: -1}
	x.counter++
	text := func(principal string) string {
		action := rapid.SampledFrom([]string{"user.list", "token.list"}).Draw(t, "action")
		return fmt.Sprintf("// %d\nforbid (principal == %s, action == Watchword::Action::%q, resource);", x.counter, principal, action)
	}
	probe := fmt.Sprintf("Watchword::Key::%q", x.probe.ID)
	some := func(what string, n int) []string {
		var ids []string
		for i := range n {
			if rapid.IntRange(0, 2).Draw(t, what) == 0 {
				ids = append(ids, fmt.Sprint(what, i))
			}
		}
		return ids
	}
	switch rapid.SampledFrom([]string{"put", "put", "delete", "template", "link", "link", "unlink", "all", "back", "back"}).Draw(t, "op") {
	case "put":
		for _, id := range append(some("p", 4), "p4") {
			o.edit.Put = append(o.edit.Put, item(id, text(probe)))
		}
	case "delete":
		o.edit.Delete = append(some("p", 2), "p2")
	case "template":
		o.edit.PutTemplates = []policy.Item{item(rapid.SampledFrom([]string{"t0", "t1"}).Draw(t, "template"), text("?principal"))}
	case "link":
		id := rapid.SampledFrom([]string{"t0", "t1"}).Draw(t, "template")
		o.edit.PutLinks = []policy.Link{{ID: rapid.SampledFrom([]string{"l0", "l1", "l2"}).Draw(t, "link"), Template: id, Principal: probe}}
		if rapid.Bool().Draw(t, "with it") {
			o.edit.PutTemplates = []policy.Item{item(id, text("?principal"))}
		}
	case "unlink":
		o.edit.DeleteLinks = []string{rapid.SampledFrom([]string{"l0", "l1", "l2"}).Draw(t, "link")}
	case "all":
		o.edit.Put, o.edit.Delete = []policy.Item{item("p5", text(probe))}, []string{"p4"}
		o.edit.PutTemplates = []policy.Item{item("t0", text("?principal"))}
		o.edit.PutLinks = []policy.Link{{ID: "l0", Template: "t0", Principal: probe}}
	default:
		o.back, o.to = true, max(x.last-rapid.Int64Range(0, 20).Draw(t, "back"), 0)
	}
	if !o.back && rapid.IntRange(0, 3).Draw(t, "expecting") == 0 {
		o.expect = x.last
	}
	return o
}

// round runs ops at once, while the nodes are asked all the time, and holds all that
// was answered against the versions that there are then.
func (x *editors) round(t *rapid.T, ops []*policyOp) {
	var mu sync.Mutex
	var seen []seenDecision
	var asking, all sync.WaitGroup
	stop := make(chan struct{})
	for i := range x.nodes {
		asking.Go(func() {
			for {
				if d, ok := x.ask(i); ok {
					mu.Lock()
					seen = append(seen, d)
					mu.Unlock()
				}
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
	}
	before := x.last
	for _, o := range ops {
		all.Go(func() { o.run(x) })
	}
	all.Wait()
	close(stop)
	asking.Wait()
	for _, n := range x.nodes {
		n.db.often.Store(0)
	}
	x.readVersions(t)
	for i := range x.nodes { // after all is committed, on every node
		var d seenDecision
		answered(t, func() error {
			var ok bool
			if d, ok = x.ask(i); !ok {
				return tokens.ErrUnavailable
			}
			return nil
		})
		if d.by != forbidding(x.sources[x.last]) {
			t.Fatalf("node %d decides by %q, and version %d says %q", i, d.by, x.last, forbidding(x.sources[x.last]))
		}
	}
	for _, d := range seen {
		if !slices.ContainsFunc(x.numbers(max(d.floor, 0), x.last), func(v int64) bool { return forbidding(x.sources[v]) == d.by }) {
			t.Fatalf("node %d decided by %q when version %d was committed, and no version from there on says so", d.node, d.by, d.floor)
		}
	}
	x.explain(t, before, ops)
}

func (x *editors) numbers(from, to int64) (list []int64) {
	for v := from; v <= to; v++ {
		list = append(list, v)
	}
	return list
}

// answered asks until there is an answer: a machine that is busy with something else for
// seconds is no fault of the product's.
func answered(t *rapid.T, ask func() error) {
	t.Helper()
	err := ask()
	for begin := time.Now(); errors.Is(err, tokens.ErrUnavailable) && time.Since(begin) < time.Minute; err = ask() {
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// readVersions reads what is new, and sees that no version is missing.
func (x *editors) readVersions(t *rapid.T) {
	var list []tokens.PolicyVersion
	answered(t, func() (err error) {
		list, err = x.nodes[0].PolicyVersions(ctx, x.admin, 1000)
		return err
	})
	for i, v := range list {
		if v.Version != list[0].Version-int64(i) {
			t.Fatalf("version %d follows version %d", list[0].Version-int64(i)+1, v.Version)
		}
		var head tokens.PolicyVersion
		var src policy.Source
		answered(t, func() (err error) {
			head, src, err = tokens.PoliciesOf(x.nodes[0].Service, ctx, v.Version)
			return err
		})
		if head.Sum != v.Sum {
			t.Fatalf("version %d: %+v", v.Version, head)
		}
		if known, ok := x.sources[v.Version]; ok && !sameDocument(known, src) {
			t.Fatalf("version %d was %+v, and is %+v", v.Version, known, src)
		}
		x.sources[v.Version] = src
		x.last = max(x.last, v.Version)
	}
}

// explain sees that each new version is what one of the ops makes of the one before, and
// that each op that was answered well is in one.
func (x *editors) explain(t *rapid.T, before int64, ops []*policyOp) {
	by := map[int64]int{}
	for _, o := range ops {
		switch v := o.set.Version; {
		case o.done && v > before && v <= x.last && x.makes(o, v):
			if !sameDocument(o.set.Source, x.sources[v]) {
				t.Fatalf("version %d was answered as %+v, and is %+v", v, o.set.Source, x.sources[v])
			}
			if o.expect >= 0 && v != o.expect+1 {
				t.Fatalf("an edit of version %d made version %d", o.expect, v)
			}
			if !o.back { // of two who go back to one, the second finds it done
				by[v]++
			}
		case o.done:
			if is, ok := o.after(x, x.sources[v]); !ok || v < before || v > x.last || !sameDocument(is, x.sources[v]) {
				t.Fatalf("an edit (%+v, back to %d) was answered with version %d, which is %+v, after %+v", o.edit, o.to, v, x.sources[v], x.sources[v-1])
			}
		case errors.Is(o.err, tokens.ErrUnavailable), errors.Is(o.err, tokens.ErrState), errors.Is(o.err, tokens.ErrInvalid), errors.Is(o.err, tokens.ErrNotFound):
		default:
			t.Fatalf("%+v: %v", o.edit, o.err)
		}
	}
	for _, v := range x.numbers(before+1, x.last) {
		if by[v] > 1 {
			t.Fatalf("version %d was answered to %d editors", v, by[v])
		}
		if !slices.ContainsFunc(ops, func(o *policyOp) bool {
			return (o.done && o.set.Version == v || errors.Is(o.err, tokens.ErrUnavailable)) && x.makes(o, v)
		}) {
			t.Fatalf("nobody made version %d, %+v, of %+v", v, x.sources[v], x.sources[v-1])
		}
	}
}

// makes says whether an op makes a version of the one before it.
func (x *editors) makes(o *policyOp, v int64) bool {
	next, ok := o.after(x, x.sources[v-1])
	return ok && v > 0 && sameDocument(next, x.sources[v])
}

// wantWhole sees that the audit tells of every version once, and is intact.
func (x *editors) wantWhole() {
	x.t.Helper()
	told := map[string]int{}
	q := tokens.RecordQuery{Limit: 1000}
	for {
		page, next, err := x.nodes[0].Records(ctx, x.admin, q)
		if err != nil {
			x.t.Fatal(err)
		}
		for i := range page {
			if !strings.HasPrefix(page[i].Action, "policy.") {
				continue
			}
			steps := map[string]bool{}
			for _, f := range page[i].Detail {
				if f.Name == "version" && strings.Contains(f.Value, "->") && page[i].Outcome == "ok" {
					steps[f.Value] = true
				}
			}
			for s := range steps {
				told[s]++
			}
		}
		if q.Before = next; next == 0 {
			break
		}
	}
	for _, v := range x.numbers(1, x.last) {
		if step := fmt.Sprintf("%d -> %d", v-1, v); told[step] == 0 {
			x.t.Errorf("the audit does not tell of version %s", step)
		}
	}
	if len(told) != int(x.last) {
		x.t.Errorf("the audit tells of %d versions, and there are %d", len(told), x.last)
	}
	report, err := x.nodes[0].VerifyAudit(ctx, x.admin)
	if err != nil || !report.Intact {
		x.t.Errorf("%+v, %v", report, err)
	}
}

// TestPoliciesThatAreEditedEverywhereAtOnceStayOne: edits of policies, templates and
// links, and roll-backs, from all nodes at the same moment, with commits that fail
// before or after the deed, and nodes that end in between. Every decision on any node is
// that of one committed version, and never of one older than was answered before it was
// asked; versions have no gaps; each is what one edit made of the one before; a roll-back
// restores exactly.
func TestPoliciesThatAreEditedEverywhereAtOnceStayOne(t *testing.T) {
	for _, c := range []struct {
		name  string
		nodes int
		url   func(t *testing.T) string
	}{
		{"SQLite", 1, func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "watchword.db") }},
		{"PostgreSQL, two nodes", 2, func(t *testing.T) string { return storetest.Postgres(t) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newEditors(t, c.url(t), c.nodes)
			rapid.Check(t, func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "crash") == 0 {
					x.crash(rapid.IntRange(0, c.nodes-1).Draw(t, "node"))
				}
				if rapid.IntRange(0, 2).Draw(t, "faults") == 0 {
					for _, n := range x.nodes {
						n.db.often.Store(rapid.Int64Range(2, 6).Draw(t, "often"))
					}
				}
				var ops []*policyOp
				for range rapid.IntRange(1, 5).Draw(t, "ops") {
					ops = append(ops, x.draw(t, rapid.IntRange(0, c.nodes-1).Draw(t, "on node")))
				}
				x.round(t, ops)
			})
			x.wantWhole()
			t.Logf("%d versions", x.last)
		})
	}
}
