package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestKillNineLeavesNoActHalfDone kills the server while tokens are replaced and
// activated and recovery sheets are made: each act was done wholly or not at all,
// and what a client was told is done.
func TestKillNineLeavesNoActHalfDone(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { halfDone(t, startNode(t, nodeOptions{}), 2) })
	t.Run("PostgreSQL", func(t *testing.T) { halfDone(t, startNode(t, nodeOptions{database: newDatabase(t)}), 2) })
}

// shownToken is what these tests look at of a token.
type shownToken struct{ Serial, State, User string }

// crashAct is one act that the crash may have met.
type crashAct struct {
	k, by *hardToken // by: what k is replaced by
	saw   bool       // the client was told that it is done
	codes []string   // of the new sheet, if the client got it
	old   []string   // of the sheet before
}

func halfDone(t *testing.T, n *node, rounds int) {
	n.setRules(func(r map[string]any) { r["activation"] = "codes" })
	told, untold, undone := 0, 0, 0
	for round := range rounds {
		const each = 16
		name := func(kind string) string { return fmt.Sprintf("HD%d%s", round, kind) }
		olds, nexts, waiting := newTokens(name("O"), each, true), newTokens(name("N"), each, true), newTokens(name("W"), each, true)
		n.equip(olds...)
		n.equip(waiting...)
		n.importFile(shipment(nexts), each)
		var replace, activate, sheets []*crashAct
		for i := range each {
			n.activate(olds[i])
			var sheet struct{ Codes []string }
			n.must(http.MethodPost, "/v1/users/"+waiting[i].user+"/recovery", nil, &sheet)
			replace = append(replace, &crashAct{k: olds[i], by: nexts[i]})
			activate = append(activate, &crashAct{k: waiting[i]})
			sheets = append(sheets, &crashAct{k: waiting[i], old: sheet.Codes})
		}
		// All acts at once, and the crash in the middle of them.
		var done sync.WaitGroup
		var good atomic.Int64
		start := func(list []*crashAct, f func(a *crashAct) error) {
			done.Go(func() {
				for _, a := range list {
					if a.saw = f(a) == nil; a.saw {
						good.Add(1)
					}
				}
			})
		}
		post := func(path string, in, out any) error {
			_, err := n.call(n.key, http.MethodPost, path, in, out)
			return err
		}
		start(replace, func(a *crashAct) error {
			return post("/v1/tokens/"+a.k.serial+"/replace", map[string]string{"by": a.by.serial}, nil)
		})
		start(activate, func(a *crashAct) error {
			return post("/v1/tokens/"+a.k.serial+"/activate", map[string]string{"code1": a.k.code(0), "code2": a.k.code(1)}, nil)
		})
		start(sheets, func(a *crashAct) error {
			var sheet struct{ Codes []string }
			err := post("/v1/users/"+a.k.user+"/recovery", nil, &sheet)
			a.codes = sheet.Codes
			return err
		})
		eventually(t, 30*time.Second, "acts under way", func() bool { return good.Load() >= 6 })
		time.Sleep(rand.N(25 * time.Millisecond))
		n.kill()
		done.Wait()
		n.start()
		n.waitReady()

		count := func(a *crashAct, was bool, what string) {
			switch {
			case a.saw && !was:
				t.Errorf("round %d: %s of %s was told to be done, and is not", round, what, a.k.serial)
			case a.saw:
				told++
			case was:
				untold++
			default:
				undone++
			}
		}
		for _, a := range replace {
			old, by := n.token(a.k.serial), n.token(a.by.serial)
			switch {
			case old.State == "active" && old.User == a.k.user && by.State == "imported" && by.User == "":
				count(a, false, "replacing")
				if got := n.verify(a.k.user, a.k.press()); got != sawAccept {
					t.Errorf("round %d: %s was not replaced, and then: %s", round, a.k.serial, got)
				}
			case old.State == "revoked" && old.User == "" && by.State == "pending" && by.User == a.k.user:
				count(a, true, "replacing")
				if got := n.verify(a.k.user, a.k.press()); got != sawReject {
					t.Errorf("round %d: %s was replaced, and then: %s", round, a.k.serial, got)
				}
				a.by.user = a.k.user
				n.activate(a.by)
				if got := n.verify(a.k.user, a.by.press()); got != sawAccept {
					t.Errorf("round %d: %s is in the place of %s, and then: %s", round, a.by.serial, a.k.serial, got)
				}
			default:
				t.Errorf("round %d: replaced by halves: %+v, %+v", round, old, by)
			}
		}
		for _, a := range activate {
			again := func() error {
				return post("/v1/tokens/"+a.k.serial+"/activate", map[string]string{"code1": a.k.code(0), "code2": a.k.code(1)}, nil)
			}
			switch k := n.token(a.k.serial); {
			case k.State == "pending" && k.User == a.k.user:
				count(a, false, "activating")
				if err := again(); err != nil { // nothing of the codes was consumed
					t.Errorf("round %d: %s waits still, but not for its codes: %v", round, a.k.serial, err)
				}
			case k.State == "active" && k.User == a.k.user:
				count(a, true, "activating")
			default:
				t.Errorf("round %d: activated by halves: %+v", round, k)
				continue
			}
			// Either way both codes are spent now, and the next one is good.
			for factor, want := range []sight{sawReject, sawReject, sawAccept} {
				if got := n.verify(a.k.user, a.k.code(uint64(factor))); got != want {
					t.Errorf("round %d: code %d of %s: %s (%s)", round, factor, a.k.serial, got, n.lastAttempt(a.k.user).Reason)
				}
			}
		}
		for _, a := range sheets {
			var list struct{ Items []shownToken }
			n.must(http.MethodGet, "/v1/tokens?type=recovery&state=active&user="+a.k.user, nil, &list)
			if len(list.Items) != 1 {
				t.Errorf("round %d: %s has %d sheets", round, a.k.user, len(list.Items))
				continue
			}
			was := n.verify(a.k.user, a.old[0]) != sawAccept // the old sheet is good, or no more
			count(a, was, "a new sheet")
			if len(a.codes) > 0 {
				want := sawAccept
				if !was {
					want = sawReject
				}
				if got := n.verify(a.k.user, a.codes[0]); got != want {
					t.Errorf("round %d: a code of the new sheet of %s: %s", round, a.k.user, got)
				}
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d acts were told to be done and were; %d were done and nobody heard; %d were not", told, untold, undone)
	if told < 6*rounds || undone == 0 {
		t.Errorf("%d acts before a crash and %d behind it: too few to prove anything", told, undone)
	}
	n.wantIntactAudit()
}

// token shows a token.
func (n *node) token(serial string) (k shownToken) {
	n.t.Helper()
	n.must(http.MethodGet, "/v1/tokens/"+serial, nil, &k)
	return k
}

// activate turns a token on by its next two codes.
func (n *node) activate(k *hardToken) {
	n.t.Helper()
	n.must(http.MethodPost, "/v1/tokens/"+k.serial+"/activate", map[string]string{"code1": k.press(), "code2": k.press()}, nil)
}
