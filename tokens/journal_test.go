package tokens_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/storetest"
)

// history is a house with three chains: one ended, one of a node that is gone
// without a word, and its own, with a checkpoint somewhere.
func history(t *testing.T) *house {
	h := newHouse(t)
	first := h.node(&firsts{})
	d := totp("T1")
	h.give("alice", d)
	for range 5 {
		h.try("alice", "000000")
		if _, err := first.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: "111111"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Close(ctx); err != nil {
		t.Fatal(err)
	}
	h.node(&firsts{}) // a start names all heads
	for range 5 {
		h.try("nobody", "000000")
	}
	return h
}

func rehash(list []audit.Record) []audit.Record {
	prev := [32]byte{}
	for i := range list {
		list[i].Seq = int64(i + 1)
		list[i].Hash = audit.Sum(prev, list[i].Chain, list[i].Seq, &list[i].Event)
		prev = list[i].Hash
	}
	return list
}

func setDetail(r *audit.Record, name, value string) {
	r.Detail = slices.Clone(r.Detail)
	for i := range r.Detail {
		if r.Detail[i].Name == name {
			r.Detail[i].Value = value
		}
	}
}

func TestTheAuditNoticesWhatWasDoneToIt(t *testing.T) {
	h := history(t)
	h.intact()
	chains, err := h.mem.Chains(ctx)
	if err != nil || len(chains) != 3 {
		t.Fatalf("%d chains, %v", len(chains), err)
	}
	// The first chain is open and named by a checkpoint in the middle; the
	// second is closed and named at its end; the third is the newest.
	for _, c := range []struct {
		name  string
		chain int64
		edit  func(list []audit.Record) []audit.Record
		says  string
	}{
		{"an altered outcome", chains[0], func(l []audit.Record) []audit.Record { l[6].Outcome = "accept"; return l }, "record 7 was altered"},
		{"an altered reason", chains[1], func(l []audit.Record) []audit.Record { l[2].Reason = "x"; return l }, "record 3 was altered"},
		{"an altered time", chains[1], func(l []audit.Record) []audit.Record { l[2].Time = l[2].Time.Add(1000); return l }, "record 3 was altered"},
		{"an altered detail", chains[0], func(l []audit.Record) []audit.Record { setDetail(&l[7], "transport", "http"); return l }, "record 8 was altered"},
		{"an altered hash", chains[0], func(l []audit.Record) []audit.Record { l[6].Hash[0] ^= 1; return l }, "record 7 was altered"},
		{"the last record altered", chains[0], func(l []audit.Record) []audit.Record { l[len(l)-1].User = "bob"; return l }, "was altered"},
		{"a record removed from the middle", chains[0], func(l []audit.Record) []audit.Record { return slices.Delete(l, 5, 6) }, "records 6 to 6 are missing"},
		{"three records removed", chains[0], func(l []audit.Record) []audit.Record { return slices.Delete(l, 4, 7) }, "records 5 to 7 are missing"},
		{"the first record removed", chains[0], func(l []audit.Record) []audit.Record { return l[1:] }, "records 1 to 1 are missing"},
		{"a removed record, renumbered", chains[0], func(l []audit.Record) []audit.Record {
			l = slices.Delete(l, 5, 6)
			for i := range l {
				l[i].Seq = int64(i + 1)
			}
			return l
		}, "record 6 was altered"},
		{"two records exchanged", chains[0], func(l []audit.Record) []audit.Record { l[5], l[6] = l[6], l[5]; return l }, "missing"},
		{"two records exchanged, renumbered", chains[0], func(l []audit.Record) []audit.Record {
			l[5].Event, l[6].Event = l[6].Event, l[5].Event
			l[5].User = "x" + l[5].User
			return l
		}, "was altered"},
		{"the end of a closed chain removed", chains[1], func(l []audit.Record) []audit.Record { return l[:len(l)-2] }, "which a checkpoint signed, is missing"},
		{"a closed chain removed", chains[1], func(l []audit.Record) []audit.Record { return nil }, "which a checkpoint signed, is missing"},
		{"a chain altered and hashed anew", chains[1], func(l []audit.Record) []audit.Record { l[2].Outcome = "accept"; return rehash(l) }, "is not the one that a checkpoint signed"},
		{"a chain shortened and hashed anew", chains[1], func(l []audit.Record) []audit.Record { return rehash(slices.Delete(l, 2, 3)) }, "checkpoint signed"},
		{"a record put in and hashed anew", chains[1], func(l []audit.Record) []audit.Record { return rehash(slices.Insert(l, 2, l[1])) }, "is not the one that a checkpoint signed"},
		{"a forged signature", chains[2], func(l []audit.Record) []audit.Record {
			setDetail(&l[0], "signature", base64.StdEncoding.EncodeToString(make([]byte, 64)))
			return rehash(l)
		}, "the signature over the chain heads is wrong"},
		{"a signature that is no base64", chains[2], func(l []audit.Record) []audit.Record { setDetail(&l[0], "signature", "!"); return rehash(l) }, "signature"},
		{"no signature", chains[2], func(l []audit.Record) []audit.Record { l[0].Detail = nil; return rehash(l) }, "signature"},
		{"heads without the closed chain", chains[2], func(l []audit.Record) []audit.Record {
			heads := strings.Split(l[0].Detail[0].Value, ",")
			setDetail(&l[0], "heads", heads[0])
			return rehash(l)
		}, "signature"},
		{"heads that cannot be read", chains[2], func(l []audit.Record) []audit.Record { setDetail(&l[0], "heads", "1:x:y"); return rehash(l) }, "cannot be read"},
		{"a chain that does not begin with a start", chains[2], func(l []audit.Record) []audit.Record { l[0].Action = "verify"; return rehash(l) }, "does not begin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			touched := false
			h.db.edit(func(e *editor) {
				e.chain = func(l []audit.Record) []audit.Record {
					if len(l) > 0 && l[0].Chain == c.chain {
						touched = true
						return c.edit(slices.Clone(l))
					}
					return l
				}
			})
			defer h.db.edit(func(e *editor) { e.chain = nil })
			report, err := h.VerifyAudit(ctx, h.admin)
			if err != nil || report.Intact || !strings.Contains(strings.Join(report.Problems, "\n"), c.says) {
				t.Errorf("%v, intact %v, problems %q; want one that says %q", err, report.Intact, report.Problems, c.says)
			}
			if !touched {
				t.Error("nothing was edited")
			}
		})
	}
	h.intact()
}

// Each start signs the heads that it finds: who rewrites a closed chain and
// waits for the next start has a signature over the forgery. The one made
// before contradicts it.
func TestAChainRewrittenBeforeAStartIsNoticedAfterIt(t *testing.T) {
	h := history(t)
	chains, err := h.mem.Chains(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var forged audit.Head
	h.db.edit(func(e *editor) {
		e.chain = func(l []audit.Record) []audit.Record {
			if len(l) > 0 && l[0].Chain == chains[1] {
				l[2].Outcome = "accept"
				l[len(l)-1].Event = l[1].Event // the end named the heads; now it looks as if the node was killed
				l = rehash(l)
				forged = audit.Head{Chain: chains[1], Seq: l[len(l)-1].Seq, Hash: l[len(l)-1].Hash}
			}
			return l
		}
		e.heads = func(l []audit.Head) []audit.Head {
			for i := range l {
				if l[i].Chain == forged.Chain {
					l[i] = forged
				}
			}
			return l
		}
	})
	h.must(nil, h.db.Walk(ctx, chains[1], func(*audit.Record) error { return nil }))
	h.node(&firsts{})
	report, err := h.VerifyAudit(ctx, h.admin)
	if err != nil || report.Intact {
		t.Errorf("%+v, %v", report, err)
	}
	h.db.edit(func(e *editor) { e.chain, e.heads = nil, nil })
}

// A chain is looked at because its records are there or because a checkpoint
// names it, whether or not it is still listed.
func TestAChainThatIsNoLongerListedIsLookedAt(t *testing.T) {
	h := history(t)
	chains, err := h.mem.Chains(ctx)
	if err != nil {
		t.Fatal(err)
	}
	h.db.edit(func(e *editor) {
		e.chains = func(l []int64) []int64 { return slices.DeleteFunc(l, func(id int64) bool { return id == chains[1] }) }
		e.chain = func(l []audit.Record) []audit.Record {
			if len(l) > 0 && l[0].Chain == chains[1] {
				l[2].Outcome = "accept"
			}
			return l
		}
	})
	report, err := h.VerifyAudit(ctx, h.admin)
	if err != nil || report.Intact || !strings.Contains(strings.Join(report.Problems, "\n"), "record 3 was altered") {
		t.Errorf("%+v, %v", report, err)
	}
	h.db.edit(func(e *editor) { e.chain, e.chains = nil, nil })
}

// A server knows where its own chain ends, without a checkpoint.
func TestTheEndOfAServersOwnChainIsMissed(t *testing.T) {
	h := history(t)
	own, err := h.mem.Chains(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(l []audit.Record) []audit.Record{
		"removed":              func(l []audit.Record) []audit.Record { return l[:len(l)-3] },
		"altered, hashed anew": func(l []audit.Record) []audit.Record { l[len(l)-1].User = "bob"; return rehash(l) },
		"put in, hashed anew":  func(l []audit.Record) []audit.Record { return rehash(slices.Insert(l, len(l)-1, l[0])) },
	} {
		h.db.edit(func(e *editor) {
			e.chain = func(l []audit.Record) []audit.Record {
				if len(l) > 0 && l[0].Chain == own[0] {
					return edit(l)
				}
				return l
			}
		})
		report, err := h.VerifyAudit(ctx, h.admin)
		if err != nil || report.Intact {
			t.Errorf("%s: %+v, %v", name, report, err)
		}
	}
	h.db.edit(func(e *editor) { e.chain = nil })
}

// The signature of one start stands in no other: a chain that was made up
// would need one of its own.
func TestAChainThatWasMadeUpIsNoticed(t *testing.T) {
	h := history(t)
	chains, err := h.mem.Chains(ctx)
	if err != nil {
		t.Fatal(err)
	}
	made := int64(1 << 40)
	h.db.edit(func(e *editor) {
		e.chains = func(l []int64) []int64 { return append(l, made) }
		e.chain = func(l []audit.Record) []audit.Record { return l }
	})
	var list []audit.Record
	h.must(nil, h.mem.Walk(ctx, chains[0], func(r *audit.Record) error {
		list = append(list, *r)
		return nil
	}))
	for i := range list {
		list[i].Chain = made
	}
	list = rehash(list[:3])
	h.db.edit(func(e *editor) { e.made = list })
	report, err := h.VerifyAudit(ctx, h.admin)
	if err != nil || report.Intact {
		t.Errorf("%+v, %v", report, err)
	}
	h.db.edit(func(e *editor) { e.made, e.chain, e.chains = nil, nil, nil })
}

func TestVerifyingTheAuditSaysHowMuchItLookedAt(t *testing.T) {
	h := history(t)
	records, _, err := h.mem.Records(ctx, tokens.RecordQuery{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	report, err := h.VerifyAudit(ctx, h.admin)
	if err != nil || report.Records != int64(len(records)) || report.Chains != 3 || report.Checkpoints != 4 || len(report.Problems) != 0 {
		t.Errorf("%+v, %v; there are %d records", report, err, len(records))
	}
	if r := h.last(); r.Action != "audit.verify" || r.Detail[0] != (audit.Field{Name: "intact", Value: "true"}) {
		t.Errorf("audited as %+v", r)
	}
}

func TestManyProblemsAreNotListedWithoutEnd(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	for range 150 {
		h.try("alice", "000000")
	}
	h.db.edit(func(e *editor) {
		e.chain = func(l []audit.Record) []audit.Record {
			for i := range l {
				l[i].User = fmt.Sprint(i)
			}
			return l
		}
	})
	report, err := h.VerifyAudit(ctx, h.admin)
	if err != nil || report.Intact || len(report.Problems) != 100 {
		t.Errorf("%v, intact %v, %d problems", err, report.Intact, len(report.Problems))
	}
	h.db.edit(func(e *editor) { e.chain = nil })
}

// No record ever holds what was typed, a PIN, a secret or a seed.
func TestTheAuditHoldsNoSecrets(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "pin-pin-pin", false))
	secret := "shared-shared-secret"
	h.must(h.PutClient(ctx, h.admin, tokens.NewClient{Name: "nas", Prefix: h.prefix("192.0.2.1/32"), Secret: []byte(secret)}, false))
	h.try("alice", "pin-pin-pin"+d.code(h, 0))
	h.try("alice", "pin-pin-pin"+d.code(h, 0))
	h.try("alice", "wrong-pin-pin"+d.code(h, 1))
	h.try("alice", "letmein!")
	h.must(h.Resync(ctx, h.admin, "", "T1", d.code(h, 1), d.code(h, 2)))
	list, _, err := h.mem.Records(ctx, tokens.RecordQuery{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%+v %s", list, h.log)
	for _, s := range []string{"pin-pin", secret, "letmein", d.code(h, 0), d.code(h, 1), d.code(h, 2), string(d.seed), fmt.Sprintf("%x", d.seed)} {
		if strings.Contains(all, s) {
			t.Errorf("the audit or the log holds %q", s)
		}
	}
}

// Only what this server wrote is in its chain: it goes on behind a commit whose
// answer was lost, and behind no record of anybody else's.
func TestAServerDoesNotContinueBehindRecordsOfOthers(t *testing.T) {
	h := newHouse(t)
	h.give("alice", totp("T1"))
	heads, err := h.mem.Heads(ctx)
	if err != nil || len(heads) != 1 {
		t.Fatal(heads, err)
	}
	h.mem.Inject(storetest.FailedButPersisted)
	if _, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: "000000"}); !errors.Is(err, tokens.ErrUnavailable) {
		t.Fatal(err)
	}
	h.try("alice", "000000")
	if heads, err = h.mem.Heads(ctx); err != nil {
		t.Fatal(err)
	}
	forged, _ := audit.Append(heads[0], []audit.Event{{Time: start, Action: "verify", Outcome: "accept", User: "alice"}})
	h.must(nil, h.mem.Commit(ctx, &tokens.Change{Records: forged}))
	for range 2 {
		if _, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: "000000"}); !errors.Is(err, tokens.ErrUnavailable) || !strings.Contains(err.Error(), "did not write") {
			t.Errorf("behind a forged record: %v", err)
		}
	}
	h.broken = true
}

// Counters are in no binding: who sets a token's row back makes its last code
// good again, and the audit shows it.
func TestTheAuditShowsThatACounterWasSetBack(t *testing.T) {
	for _, d := range []*device{totp("T1"), hotp("H1")} {
		h := newHouse(t)
		h.give("alice", d, totp("T2"))
		code := func() string {
			if d.Type == tokens.HOTP {
				return d.at(0)
			}
			return d.code(h, 0)
		}
		h.ends("alice", code(), true, tokens.ReasonAccepted)
		h.ends("alice", code(), false, tokens.ReasonReplay)
		h.intact()
		back := int64(-1)
		if d.Type == tokens.HOTP {
			back = 0
		}
		h.mem.Forgive()
		h.mem.SetBack("default", d.Serial, back)
		h.ends("alice", code(), true, tokens.ReasonAccepted)
		report, err := h.VerifyAudit(ctx, h.admin)
		if err != nil || report.Intact || !strings.Contains(strings.Join(report.Problems, "\n"), "set back") {
			t.Errorf("%s: %+v, %v", d.Serial, report, err)
		}
	}
}
