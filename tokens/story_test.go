package tokens_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/policy"
)

func texts(items []tokens.StoryItem) string {
	var b strings.Builder
	for _, it := range items {
		fmt.Fprintln(&b, it.Text)
	}
	return b.String()
}

// life is a token's: given, used, forgotten, lost, found.
func life(h *house) *device {
	d := totp("T1")
	h.give("alice", d)
	login := func(n int) {
		for range n {
			h.clock.forward(9 * time.Hour)
			if !h.try("alice", d.code(h, 0)) {
				h.Fatal("a login is refused")
			}
		}
	}
	login(30)
	h.try("alice", d.wrong(h.clock.now().Unix()/30))
	login(11)
	for range 4 {
		h.clock.forward(time.Hour)
		h.try("alice", d.wrong(h.clock.now().Unix()/30))
	}
	h.must(h.MarkLost(ctx, h.admin, "", "T1", "left on the train"))
	h.clock.forward(time.Hour)
	h.ends("alice", d.code(h, 0), false, tokens.ReasonLostUsed)
	h.must(h.Resume(ctx, h.admin, "", "T1", "the railway\nfound it"))
	h.must(h.Resume(ctx, h.admin, "", "T1", ""))
	login(2)
	return d
}

func TestAStoryTellsWhatHappenedInOrder(t *testing.T) {
	h := newHouse(t)
	life(h)
	h.must(h.ShowToken(ctx, h.admin, "", "T1"))
	helpdesk := h.key("", "helpdesk")
	if _, err := h.Suspend(ctx, h.key("", "verify"), "", "T1", ""); !errors.Is(err, tokens.ErrForbidden) {
		t.Fatal(err)
	}
	h.must(h.Suspend(ctx, helpdesk, "", "T1", ""))
	if _, err := h.Assign(ctx, helpdesk, "", "T1", "nobody"); err == nil {
		t.Fatal("given to nobody")
	}
	items, next, err := h.TokenStory(ctx, helpdesk, "", "T1", 0, 50)
	if err != nil || next != 0 {
		t.Fatal(next, err)
	}
	want := []string{
		`Token T1 came with import 6 ("shipment.csv"), by the API key "first administrator".`,
		`Token T1 was given to alice by the API key "first administrator".`,
		`41 logins with token T1 between 1 March 2026 21:00 UTC and 16 March 2026 21:00 UTC.`,
		`Token T1 was marked lost by the API key "first administrator". The reason given: "left on the train".`,
		`A login through the RADIUS client localhost with token T1 was refused. The code was that of a token marked lost.`,
		`Token T1 was turned on again by the API key "first administrator"; it had been lost. The reason given: "the railway found it".`,
		`The API key "first administrator" asked to turn token T1 on again; it was so already.`,
		`2 logins with token T1 between 17 March 2026 11:00 UTC and 17 March 2026 20:00 UTC.`,
		`The API key "key" tried to suspend token T1, and was not allowed to.`,
		`Token T1 was suspended by the API key "key".`,
		`The API key "key" tried to give token T1 to nobody: there is none.`,
	}
	got := strings.Split(strings.TrimSpace(texts(items)), "\n")
	for i := range max(len(got), len(want)) {
		g, w := "", ""
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("item %d:\n got %s\nwant %s", i, g, w)
		}
	}
	if !slices.IsSortedFunc(items, func(a, b tokens.StoryItem) int { return a.Time.Compare(b.Time) }) {
		t.Error("the items are not in order of time")
	}
	logins := items[2]
	if logins.Count != 41 || logins.Action != "verify" || logins.Outcome != "accept" || logins.Serial != "T1" || logins.User != "alice" || logins.Until.Sub(logins.Time) != 15*24*time.Hour {
		t.Errorf("the logins: %+v", logins)
	}
	if r := h.last(); r.Action != string(policy.TokenStory) || r.User != "alice" || r.Serial != "T1" {
		t.Errorf("audited as %+v", r)
	}

	of, next, err := h.UserStory(ctx, helpdesk, "", "Alice", 0, 50)
	if err != nil || next != 0 {
		t.Fatal(next, err)
	}
	for _, says := range []string{
		`User alice was added by the API key "first administrator".`,
		`41 logins with token T1, and 1 refused (1 with a wrong code) between 1 March 2026 21:00 UTC and 16 March 2026 21:00 UTC.`,
		`4 refused logins (4 with a wrong code) between 16 March 2026 22:00 UTC and 17 March 2026 01:00 UTC.`,
		"Token T1 was marked lost", "2 logins",
	} {
		if !strings.Contains(texts(of), says) {
			t.Errorf("the user's story does not say %q:\n%s", says, texts(of))
		}
	}
	if _, _, err := h.UserStory(ctx, helpdesk, "", "nobody", 0, 50); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
	if _, _, err := h.TokenStory(ctx, helpdesk, "", "T9", 0, 50); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("of no token: %v", err)
	}
	h.intact()
}

// However it is cut into pages, a story tells each record once.
func TestAStoryInPagesIsTheWholeStory(t *testing.T) {
	h := newHouse(t)
	life(h)
	for i := range 30 {
		h.clock.forward(time.Minute)
		h.must(h.Suspend(ctx, h.admin, "", "T1", fmt.Sprint(i)))
		h.must(h.Resume(ctx, h.admin, "", "T1", fmt.Sprint(i)))
	}
	for _, story := range map[string]func(before int64, limit int) ([]tokens.StoryItem, int64, error){
		"token": func(before int64, limit int) ([]tokens.StoryItem, int64, error) {
			return h.TokenStory(ctx, h.admin, "", "T1", before, limit)
		},
		"user": func(before int64, limit int) ([]tokens.StoryItem, int64, error) {
			return h.UserStory(ctx, h.admin, "", "alice", before, limit)
		},
	} {
		whole, next, err := story(0, 1000)
		if err != nil || next != 0 || len(whole) < 60 {
			t.Fatal(len(whole), next, err)
		}
		for _, size := range []int{1, 2, 7, 61} {
			var all []tokens.StoryItem
			for before, pages := int64(0), 0; ; pages++ {
				page, next, err := story(before, size)
				if err != nil || pages > 200 || len(page) > size+1 { // how it came is told beside the rest
					t.Fatal(pages, len(page), err)
				}
				all = append(page, all...)
				if before = next; next == 0 {
					break
				}
			}
			if texts(all) != texts(whole) {
				t.Errorf("in pages of %d:\n%s\nwhole:\n%s", size, texts(all), texts(whole))
			}
		}
	}
}

// What people wrote is told on one line, in quotation marks, and nothing of it is
// taken for a place where something is put in.
func TestWhatPeopleWroteIsOnlyQuoted(t *testing.T) {
	h := newHouse(t)
	h.ship("", totp("USER"), totp("%s"))
	h.user("TOKEN")
	h.must(h.Assign(ctx, h.admin, "", "USER", "TOKEN"))
	h.must(h.Suspend(ctx, h.admin, "", "USER", "TOKEN %s %[1]s\nUSER"))
	items, _, err := h.TokenStory(ctx, h.admin, "", "USER", 0, 50)
	if err != nil {
		t.Fatal(err)
	}
	got := texts(items)
	for _, says := range []string{"Token USER was given to token by", `The reason given: "TOKEN %s %[1]s USER".`} {
		if !strings.Contains(got, says) {
			t.Errorf("it does not say %q:\n%s", says, got)
		}
	}
}
