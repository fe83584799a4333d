package tokens

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/tokens/audit"
)

func stranger(client string) *audit.Event {
	return &audit.Event{Action: "verify", Outcome: "reject", User: "mallory", Client: client, Source: "192.0.2.1", Reason: string(ReasonUnknownUser)}
}

func TestTenStrangersAMinuteAreRecordedAndTheRestCounted(t *testing.T) {
	c := newCrowd()
	single := 0
	for range 1000 {
		if c.admit(stranger("vpn"), at) {
			single++
		}
	}
	if single != 10 {
		t.Errorf("%d of 1000 are recorded by themselves, want 10", single)
	}
	if !c.admit(stranger("other"), at) {
		t.Error("another client's first is not recorded")
	}
	if got := c.flush(at.Add(59*time.Second), false); len(got) != 0 {
		t.Errorf("before the minute is over: %v", got)
	}
	got := c.flush(at.Add(time.Minute), false)
	if len(got) != 1 || got[0].Client != "vpn" || got[0].Reason != string(ReasonUnknownUser) || got[0].User != "" || got[0].Source != "" || got[0].Detail[0] != (audit.Field{Name: "attempts", Value: "990"}) {
		t.Errorf("after it: %+v", got)
	}
	if again := c.flush(at.Add(time.Hour), true); len(again) != 0 {
		t.Errorf("told twice: %v", again)
	}
	c.restore(got)
	if again := c.flush(at.Add(time.Hour), false); len(again) != 1 || again[0].Detail[0].Value != "990" {
		t.Errorf("taken back, and gone: %v", again)
	}
}

// However many clients there are and however they come, nothing is lost and
// what is written stays bounded.
func TestNoAttemptIsLostInTheCrowd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCrowd()
		now := at
		in, out, records := 0, 0, 0
		told := func(events []audit.Event) {
			for _, e := range events {
				n, err := strconv.Atoi(e.Detail[0].Value)
				if err != nil {
					t.Fatal(err)
				}
				out += n
				records++
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "rounds") {
			client := fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "client"))
			for range rapid.IntRange(0, 50).Draw(t, "attempts") {
				in++
				if c.admit(stranger(client), now) {
					out++
					records++
				}
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
			if rapid.Bool().Draw(t, "flush") {
				told(c.flush(now, false))
			}
		}
		told(c.flush(now, true))
		if in != out {
			t.Fatalf("%d attempts, %d told", in, out)
		}
		minutes := int(now.Sub(at)/time.Minute) + 2
		if most := 4 * minutes * (crowdEach + 1); records > most {
			t.Fatalf("%d records in %d minutes, at most %d are to be", records, minutes, most)
		}
	})
}

func TestTheCrowdItselfIsBounded(t *testing.T) {
	c := newCrowd()
	single := 0
	for i := range 20 * crowdMost {
		if c.admit(stranger(fmt.Sprint(i)), at) {
			single++
		}
	}
	if len(c.seen) > crowdMost+1 {
		t.Errorf("%d clients are counted apart", len(c.seen))
	}
	if single > crowdMost+crowdEach {
		t.Errorf("%d attempts are recorded by themselves", single)
	}
}

func TestHeadsOfCheckpointsAreReadAsTheyWereWritten(t *testing.T) {
	heads := []audit.Head{{Chain: 1, Seq: 2, Hash: [32]byte{3}}, {Chain: 1 << 60, Seq: 1<<63 - 1, Hash: [32]byte{31: 0xff}}}
	got, err := parseHeads(formatHeads(heads))
	if err != nil || fmt.Sprint(got) != fmt.Sprint(heads) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := parseHeads(""); len(got) != 0 || err != nil {
		t.Errorf("no heads: %v, %v", got, err)
	}
	for _, bad := range []string{"1", "1:2", "a:2:00", "1:2:00", "1:2:" + fmt.Sprintf("%064d", 0) + ":1", "1:2:zz", "9223372036854775808:1:" + fmt.Sprintf("%064d", 0)} {
		if got, err := parseHeads(bad); !errors.Is(err, errHeads) {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}

func FuzzParseHeads(f *testing.F) {
	f.Add("")
	f.Add(formatHeads([]audit.Head{{Chain: 1, Seq: 2}, {Chain: 3, Seq: 4, Hash: [32]byte{5}}}))
	f.Add("1:2:00,,3:4")
	f.Fuzz(func(t *testing.T, text string) {
		heads, err := parseHeads(text)
		if err != nil {
			if heads != nil {
				t.Fatalf("heads %v with error %v", heads, err)
			}
			return
		}
		again, err := parseHeads(formatHeads(heads))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(heads) {
			t.Fatalf("%q was read as %v, and that as %v, %v", text, heads, again, err)
		}
		if audit.CheckpointDigest(again) != audit.CheckpointDigest(heads) {
			t.Fatal("the digests differ")
		}
	})
}
