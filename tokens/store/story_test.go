package store_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/storetest"
)

// firstKey keeps what a new installation shows once.
type firstKey struct{ key string }

func (f *firstKey) Save(key, _ string) error {
	f.key = key
	return nil
}

// A token's story and its clock are the same from each database, in one page or in
// many.
func TestStoriesAndDriftsAreTheSameFromEachDatabase(t *testing.T) {
	url := storetest.Postgres(t)
	empty(t, url)
	var first string
	for _, of := range []struct {
		name string
		db   tokens.Database
	}{{"memory", storetest.NewMemory(t)}, {"SQLite", openMigrated(t, sqliteURL(t))}, {"PostgreSQL", openMigrated(t, url)}} {
		t.Run(of.name, func(t *testing.T) {
			got := lived(t, of.db)
			if first == "" {
				first = got
			}
			if got != first {
				t.Errorf("from %s:\n%s\nfrom memory:\n%s", of.name, got, first)
			}
		})
	}
}

// lived has two tokens used for two months, and answers what is told of them.
func lived(t *testing.T, db tokens.Database) string {
	ctx := context.Background()
	now := time.Date(2026, 3, 1, 12, 0, 10, 0, time.UTC)
	begin := now
	var clock atomic.Int64 // now, for the server's own goroutines too
	later := func(d time.Duration) {
		now = now.Add(d)
		clock.Store(now.UnixNano())
	}
	later(0)
	keys := hsmtest.NewMemory(t)
	var f firstKey
	s, err := tokens.Open(ctx, tokens.Config{
		Database: db, Custody: keys, Exclusive: true, Now: func() time.Time { return time.Unix(0, clock.Load()).UTC() },
		ClockSkew: 50 * 365 * 24 * time.Hour, // the database has the real one
	}, keys, &f)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	admin, err := s.Authenticate(ctx, f.key)
	if err != nil {
		t.Fatal(err)
	}
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in, err := s.BeginImport(ctx, admin, tokens.NewImport{Name: "shipment.csv", Format: "oath-csv"})
	if err != nil {
		t.Fatal(err)
	}
	seeds := map[string][]byte{"T1": []byte("12345678901234567890"), "T2": []byte("09876543210987654321")}
	var list []tokens.NewToken
	for _, serial := range []string{"T1", "T2"} {
		list = append(list, tokens.NewToken{Serial: serial, Type: tokens.TOTP, Algorithm: hsm.SHA1, Digits: 6, Period: 30, Seed: append([]byte(nil), seeds[serial]...)})
	}
	must(in.Add(ctx, list))
	must(in.Publish(ctx, "00", 2, 0, 0))
	code := func(serial string, factor int64) string {
		m := hmac.New(sha1.New, seeds[serial])
		binary.Write(m, binary.BigEndian, factor)
		sum := m.Sum(nil)
		return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[sum[19]&15:])&0x7fffffff%1e6)
	}
	for serial, user := range map[string]string{"T1": "alice", "T2": "bob"} {
		must(s.AddUser(ctx, admin, "", user))
		must(s.Assign(ctx, admin, "", serial, user))
	}
	try := func(user, code string) bool {
		r, err := s.Verify(ctx, admin, tokens.Attempt{User: user, Code: code})
		if err != nil {
			t.Fatal(err)
		}
		return r.Accept
	}
	const ppm = 130
	for day := range 60 {
		later(25*time.Hour + time.Duration(day*7%60)*time.Second)
		if !try("alice", code("T1", now.Unix()/30)) {
			t.Fatalf("day %d: refused", day)
		}
		ahead := time.Duration(float64(now.Sub(begin)) * ppm * 1e-6)
		f := now.Add(ahead).Unix() / 30
		if !try("bob", code("T2", f)) {
			must(s.Resync(ctx, admin, "", "T2", code("T2", f), code("T2", f+1)))
		}
		try("alice", "a wrong one")
		if day == 30 {
			must(s.Suspend(ctx, admin, "", "T1", "away"))
			later(time.Hour)
			must(s.Resume(ctx, admin, "", "T1", ""))
		}
	}
	var told strings.Builder
	for serial, want := range map[string]float64{"T1": 0, "T2": ppm} {
		d, err := s.Drift(ctx, admin, "", serial)
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Points) != 60 || math.Abs(d.PPM-want) > 10 {
			t.Errorf("%s: %d points, %.0f ppm: %s", serial, len(d.Points), d.PPM, d.Says)
		}
	}
	for _, serial := range []string{"T1", "T2"} {
		d, err := s.Drift(ctx, admin, "", serial)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&told, "%s\n", d.Text(100))
	}
	for name, story := range map[string]func(before int64, limit int) ([]tokens.StoryItem, int64, error){
		"token": func(before int64, limit int) ([]tokens.StoryItem, int64, error) {
			return s.TokenStory(ctx, admin, "", "T1", before, limit)
		},
		"user": func(before int64, limit int) ([]tokens.StoryItem, int64, error) {
			return s.UserStory(ctx, admin, "", "alice", before, limit)
		},
	} {
		var pages [2]string
		for i, size := range []int{1000, 2} {
			before := int64(0)
			for {
				items, next, err := story(before, size)
				if err != nil {
					t.Fatal(err)
				}
				text := ""
				for _, it := range items {
					// The import has a number of its own in each database.
					text += fmt.Sprintf("%d %s\n", it.Count, strings.SplitN(it.Text, " came with import", 2)[0])
				}
				pages[i] = text + pages[i]
				if before = next; next == 0 {
					break
				}
			}
		}
		if pages[0] != pages[1] || strings.Count(pages[0], "\n") < 5 {
			t.Errorf("the story of the %s in one page:\n%s\nin pages of two:\n%s", name, pages[0], pages[1])
		}
		if name == "user" {
			told.WriteString(pages[0])
		}
	}
	items, _, err := s.TokenStory(ctx, admin, "", "T1", 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range items {
		fmt.Fprintf(&told, "%d %s\n", it.Count, strings.SplitN(it.Text, " came with import", 2)[0])
	}
	return told.String()
}
