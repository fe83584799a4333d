package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

var sample = Event{
	Time: time.Date(2026, 2, 3, 4, 5, 6, 789_000, time.UTC), Action: "verify", Outcome: "accept", Realm: "default", User: "alice", Serial: "T1",
	Actor: "client:vpn", Client: "vpn", Source: "192.0.2.1", Reason: "accepted",
	Detail: []Field{{"transport", "radius"}, {"factor", "56666666"}},
}

// The format of the hash is for ever: what was written must verify with every
// later version. If this test fails, the change is wrong and not the test.
func TestTheHashOfARecordNeverChanges(t *testing.T) {
	first := Sum([32]byte{}, 1, 1, &sample)
	second := Sum(first, 1, 2, &Event{Time: time.Unix(0, 0)})
	digest := CheckpointDigest([]Head{{Chain: 2, Seq: 9, Hash: second}, {Chain: 1, Seq: 7, Hash: first}})
	for _, c := range []struct {
		name string
		got  [32]byte
		want string
	}{
		{"the first record", first, "176ee1ba05a4b4f82bcfcd7706c335b843c76e70ffd131024f37caa446fc2fc4"},
		{"the second record", second, "4396f34a90c77b53800ac70415815aef11cb3f73728dcd214ed5f52cb7065998"},
		{"the checkpoint", digest, "b2d10ea47159280ec15049cf8c0824c82f382315027ba6a975836451663765a5"},
	} {
		if got := hex.EncodeToString(c.got[:]); got != c.want {
			t.Errorf("%s has hash %s, want %s", c.name, got, c.want)
		}
	}
}

// The same hash, computed from its description and not from its code.
func TestTheHashIsWhatItsDescriptionSays(t *testing.T) {
	prev := sha256.Sum256([]byte("before"))
	var b strings.Builder
	b.WriteString("watchword-audit-1\x00")
	b.Write(prev[:])
	number := func(n uint64, bytes int) {
		for i := bytes - 1; i >= 0; i-- {
			b.WriteByte(byte(n >> (8 * i)))
		}
	}
	text := func(s string) { number(uint64(len(s)), 4); b.WriteString(s) }
	number(3, 8)
	number(4, 8)
	number(uint64(sample.Time.UnixMicro()), 8)
	for _, s := range []string{"verify", "accept", "default", "alice", "T1", "client:vpn", "vpn", "192.0.2.1", "accepted"} {
		text(s)
	}
	number(2, 4)
	for _, s := range []string{"transport", "radius", "factor", "56666666"} {
		text(s)
	}
	if want, got := sha256.Sum256([]byte(b.String())), Sum(prev, 3, 4, &sample); got != want {
		t.Errorf("the hash is %x, want %x", got, want)
	}
}

func TestEachFieldChangesTheHash(t *testing.T) {
	was := Sum([32]byte{}, 1, 2, &sample)
	for name, edit := range map[string]func(e *Event){
		"time":                       func(e *Event) { e.Time = e.Time.Add(time.Microsecond) },
		"action":                     func(e *Event) { e.Action = "Verify" },
		"outcome":                    func(e *Event) { e.Outcome = "reject" },
		"realm":                      func(e *Event) { e.Realm = "" },
		"user":                       func(e *Event) { e.User = "bob" },
		"serial":                     func(e *Event) { e.Serial = "T2" },
		"actor":                      func(e *Event) { e.Actor = "system" },
		"client":                     func(e *Event) { e.Client = "" },
		"source":                     func(e *Event) { e.Source = "192.0.2.2" },
		"reason":                     func(e *Event) { e.Reason = "replay" },
		"detail name":                func(e *Event) { e.Detail[0].Name = "t" },
		"detail value":               func(e *Event) { e.Detail[1].Value = "56666667" },
		"detail order":               func(e *Event) { e.Detail[0], e.Detail[1] = e.Detail[1], e.Detail[0] },
		"detail added":               func(e *Event) { e.Detail = append(e.Detail, Field{}) },
		"detail gone":                func(e *Event) { e.Detail = e.Detail[:1] },
		"user shifted into serial":   func(e *Event) { e.User, e.Serial = "alic", "eT1" },
		"actor and client exchanged": func(e *Event) { e.Actor, e.Client = e.Client, e.Actor },
	} {
		e := sample
		e.Detail = append([]Field(nil), sample.Detail...)
		edit(&e)
		if Sum([32]byte{}, 1, 2, &e) == was {
			t.Errorf("an edited %s is not noticed", name)
		}
	}
	if Sum([32]byte{1}, 1, 2, &sample) == was || Sum([32]byte{}, 2, 2, &sample) == was || Sum([32]byte{}, 1, 3, &sample) == was {
		t.Error("another place in the chain is not noticed")
	}
	local := sample
	local.Time = sample.Time.In(time.FixedZone("", 3600))
	if Sum([32]byte{}, 1, 2, &local) != was {
		t.Error("the same moment in another zone has another hash")
	}
}

func drawEvent(t *rapid.T) Event {
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "a", "\x00", "a\xffb", "\xc3", "a\x00b", strings.Repeat("ä", 3000)}))
	e := Event{
		Time:   time.Unix(rapid.Int64Range(-1<<33, 1<<33).Draw(t, "time"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).In(time.FixedZone("x", 3600)),
		Action: text.Draw(t, "action"), Outcome: text.Draw(t, "outcome"), Realm: text.Draw(t, "realm"), User: text.Draw(t, "user"), Serial: text.Draw(t, "serial"),
		Actor: text.Draw(t, "actor"), Client: text.Draw(t, "client"), Source: text.Draw(t, "source"), Reason: text.Draw(t, "reason"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "details") {
		e.Detail = append(e.Detail, Field{text.Draw(t, "name"), text.Draw(t, "value")})
	}
	return e
}

func TestAppendContinuesTheChain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		head := Head{Chain: rapid.Int64Range(1, 1<<40).Draw(t, "chain")}
		begin := head
		var all []Record
		for range rapid.IntRange(1, 4).Draw(t, "batches") {
			var events []Event
			for range rapid.IntRange(0, 4).Draw(t, "events") {
				events = append(events, drawEvent(t))
			}
			before := fmt.Sprint(events)
			records, next := Append(head, events)
			if fmt.Sprint(events) != before {
				t.Fatal("Append changed the events that it was given")
			}
			again, next2 := Append(head, events)
			if next != next2 || fmt.Sprint(records) != fmt.Sprint(again) {
				t.Fatal("Append answers the same question in two ways")
			}
			head = next
			all = append(all, records...)
		}
		prev := begin
		for i := range all {
			r := &all[i]
			switch {
			case r.Chain != begin.Chain || r.Seq != prev.Seq+1:
				t.Fatalf("record %d/%d follows %d", r.Chain, r.Seq, prev.Seq)
			case r.Hash != Sum(prev.Hash, r.Chain, r.Seq, &r.Event):
				t.Fatalf("record %d does not have its hash", r.Seq)
			case r.Time.Location() != time.UTC || r.Time.Nanosecond()%1000 != 0:
				t.Fatalf("record %d has time %v", r.Seq, r.Time)
			}
			prev = Head{r.Chain, r.Seq, r.Hash}
		}
		if prev != head {
			t.Fatalf("the head is %v, the last record %v", head, prev)
		}
	})
}

// A record must come back from any database as it was hashed: PostgreSQL's text
// takes neither NUL nor what is not UTF-8, and JSON replaces the latter.
func TestARecordHoldsOnlyWhatEveryDatabaseKeeps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawEvent(t)
		records, _ := Append(Head{Chain: 1}, []Event{e})
		r := records[0]
		all := []string{r.Action, r.Outcome, r.Realm, r.User, r.Serial, r.Actor, r.Client, r.Source, r.Reason}
		was := []string{e.Action, e.Outcome, e.Realm, e.User, e.Serial, e.Actor, e.Client, e.Source, e.Reason}
		for i, f := range r.Detail {
			all = append(all, f.Name, f.Value)
			was = append(was, e.Detail[i].Name, e.Detail[i].Value)
		}
		for i, s := range all {
			if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
				t.Fatalf("a record holds %q", s)
			}
			if utf8.ValidString(was[i]) && !strings.ContainsRune(was[i], 0) && s != was[i] {
				t.Fatalf("%q became %q, and need not have", was[i], s)
			}
		}
	})
}

func TestACheckpointSignsAllHeadsInWhateverOrder(t *testing.T) {
	heads := []Head{{1, 5, [32]byte{1}}, {2, 1, [32]byte{2}}, {7, 9, [32]byte{3}}}
	was := CheckpointDigest(heads)
	before := fmt.Sprint(heads)
	r := rand.New(rand.NewPCG(1, 1))
	for range 10 {
		mixed := append([]Head(nil), heads...)
		r.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		if CheckpointDigest(mixed) != was {
			t.Errorf("the order counts: %v", mixed)
		}
	}
	if fmt.Sprint(heads) != before {
		t.Error("the heads were changed")
	}
	for name, other := range map[string][]Head{
		"a head is missing": heads[:2],
		"another place":     {heads[0], heads[1], {7, 8, [32]byte{3}}},
		"another hash":      {heads[0], heads[1], {7, 9, [32]byte{4}}},
		"another chain":     {heads[0], heads[1], {8, 9, [32]byte{3}}},
		"none":              nil,
	} {
		if CheckpointDigest(other) == was {
			t.Errorf("%s, and the digest is the same", name)
		}
	}
}
