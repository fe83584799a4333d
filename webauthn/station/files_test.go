package station

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func secret(t testing.TB, text string) *Secret {
	t.Helper()
	s, err := ReadSecret(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAPINIsOneLineOfText(t *testing.T) {
	for text, want := range map[string]string{
		"1234": "1234", "1234\n": "1234", "1234\r\n": "1234", "12 34\nmore": "12 34", "päss": "päss", strings.Repeat("x", 63): strings.Repeat("x", 63),
		"": "", "\n": "", "\r\n": "", strings.Repeat("x", 64): "", "a\x00b": "", "\xff\xff\xff\xff": "",
	} {
		s, err := ReadSecret(iotestOneByte{strings.NewReader(text)})
		if (err == nil) != (want != "") {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil {
			continue
		}
		if string(s.Bytes()) != want || s.page[s.n] != 0 || s.Len() != len([]rune(want)) {
			t.Errorf("%q is read as %q", text, s.Bytes())
		}
		s.Wipe()
		s.Wipe()
		if s.page != nil {
			t.Error("it is still there")
		}
	}
	(*Secret)(nil).Wipe()
}

type iotestOneByte struct{ r *strings.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) { return o.r.Read(p[:1]) }

// Each digit is as likely as another, and what people guess first never comes.
func TestRandomPINsAreDigitsThatNobodyGuesses(t *testing.T) {
	var count [10]int
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(4, maxPIN).Draw(r, "n")
		seed := rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(r, "seed")
		s, err := RandomPIN(&stream{seed: seed}, n)
		if err != nil {
			if len(seed) > 0 && !bytes.Equal(seed, bytes.Repeat(seed[:1], len(seed))) {
				r.Skip("a stream that repeats")
			}
			return
		}
		defer s.Wipe()
		if s.Len() != n || strings.Trim(string(s.Bytes()), "0123456789") != "" || trivial(s.Bytes()) {
			r.Fatalf("%q", s.Bytes())
		}
		for _, c := range s.Bytes() {
			count[c-'0']++
		}
	})
	for pin, want := range map[string]bool{
		"0000": true, "1111": true, "12345678": true, "87654321": true, "78901234": true, "13579135": false, "1357": false, "0246": false, "9876543210": true,
		"1112": false, "12346": false, "83920174": false,
	} {
		if trivial([]byte(pin)) != want {
			t.Errorf("%s is trivial: %v", pin, !want)
		}
	}
	for _, n := range []int{0, 3, 64} {
		if _, err := RandomPIN(&stream{}, n); err == nil {
			t.Errorf("a PIN of %d digits", n)
		}
	}
	if _, err := RandomPIN(bytes.NewReader([]byte("12")), 8); err == nil {
		t.Error("a PIN without randomness")
	}
	if _, err := RandomPIN(&stream{seed: []byte{7}}, 8); err == nil {
		t.Error("a PIN of one digit")
	}
}

// stream repeats its seed, with a counter.
type stream struct {
	seed []byte
	n    int
}

func (s *stream) Read(p []byte) (int, error) {
	for i := range p {
		if len(s.seed) == 1 {
			p[i] = s.seed[0]
			continue
		}
		s.n++
		p[i] = byte(s.n * 73 >> 3)
		if len(s.seed) > 0 {
			p[i] ^= s.seed[s.n%len(s.seed)]
		}
	}
	return len(p), nil
}

func TestAJournalGoesOnWhereItEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	open := func() *Journal {
		t.Helper()
		j, err := OpenJournal(path, "users at x")
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open()
	for _, r := range []Record{
		{What: whatMade, Number: 1, User: "alice", Finish: &finish{Session: "s", Response: []byte(`{"a":1}`)}, Labeled: true},
		{What: whatDone, Number: 1, User: "alice", Serial: "F-1"},
		{What: whatAside, Number: 2, User: "bob", Reason: "broken"},
		{What: whatLeft, Number: 2, Left: "a PIN"},
		{What: whatSkip, User: "carol", Reason: "there is none"},
		{What: whatMade, Number: 3, User: "bob", Finish: &finish{Session: "t", Response: []byte(`{"b":2}`)}},
	} {
		if err := j.write(r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenJournal(path, "users at x"); err == nil || !strings.Contains(err.Error(), "another station") {
		t.Errorf("two stations have it: %v", err)
	}
	before := *j
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("others can read it: %v, %v", st.Mode(), err)
	}
	// The power went while a line was written.
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(whole, `{"time":"2026-01-01T00:00:00Z","what":"done","num`...), 0o600); err != nil {
		t.Fatal(err)
	}
	again := open()
	if again.Number != 3 || !again.Done["alice"] || again.Done["bob"] || len(again.Aside) != 2 || again.Aside[0].Left != "a PIN" ||
		again.Open == nil || again.Open.User != "bob" || !reflect.DeepEqual(again.Open.Finish, before.Open.Finish) {
		t.Errorf("read as %+v", again)
	}
	if err := again.write(Record{What: whatAside, Number: 3, User: "bob", Reason: "refused"}); err != nil || again.Open != nil {
		t.Errorf("open: %+v, %v", again.Open, err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	last := open()
	if last.Open != nil || len(last.Aside) != 3 {
		t.Errorf("read as %+v", last)
	}
	last.Close()
	for name, text := range map[string]string{
		"another batch": string(whole), "no journal": "root:x:0:0\n", "unknown fields": `{"what":"batch","for":"stock","pin":"1"}` + "\n", "no head": strings.SplitAfterN(string(whole), "\n", 2)[1],
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenJournal(path, "stock"); err == nil {
			t.Errorf("%s: it is opened", name)
		}
		if after, _ := os.ReadFile(path); string(after) != text {
			t.Errorf("%s: it was changed", name)
		}
	}
}

func TestLabelsHaveALineForEachKeyWhateverHappens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "labels.csv")
	open := func(pins bool) *Labels {
		t.Helper()
		l, err := OpenLabels(path, pins)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open(true)
	pin := secret(t, `0"12,3`)
	if err := l.keep(pin, "b"); err != nil {
		t.Fatal(err)
	}
	if err := l.keep(pin, "b"); !errors.Is(err, os.ErrExist) {
		t.Errorf("a PIN that waits is overwritten: %v", err)
	}
	token := Token{Serial: "F-1", Model: `Key "5", large`, AAGUID: "a", User: "=alice", Realm: "default"}
	if err := l.append(label{number: 11, token: token, pin: pin, forced: true}); err != nil {
		t.Fatal(err)
	}
	for serial, numbers := range map[string]map[int]bool{"F-1": {11: true, 1: false, 111: false, 2: false}, "F-": {11: false}, "F-11": {11: false}} {
		for number, want := range numbers {
			if there, err := l.has(number, serial); there != want || err != nil {
				t.Errorf("key %d, %s: %v, %v", number, serial, there, err)
			}
		}
	}
	if _, err := OpenLabels(path, true); err == nil || !strings.Contains(err.Error(), "another station") {
		t.Errorf("two stations write labels: %v", err)
	}
	if _, err := l.kept("another"); err == nil || !strings.Contains(err.Error(), "another batch") {
		t.Errorf("another batch gets the PIN: %v", err)
	}
	if err := l.drop("another"); err == nil || !strings.Contains(err.Error(), "another batch") {
		t.Errorf("another batch throws the PIN away: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// The power went while the next line was written.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "12,F-2,Key,a,bo")
	f.Close()
	l = open(true)
	if there, err := l.has(12, "F-2"); there || err != nil {
		t.Errorf("half a line is one: %v", err)
	}
	kept, err := l.kept("b")
	if err != nil || string(kept.Bytes()) != `0"12,3` {
		t.Errorf("the PIN that waits: %v", err)
	}
	if err := l.append(label{number: 12, token: Token{Serial: "F-2"}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.drop("b"); err != nil {
			t.Fatal(err)
		}
	}
	if kept, err := l.kept("b"); kept != nil || err != nil {
		t.Errorf("a PIN waits still: %v", err)
	}
	// What somebody put in the place of that file is neither read nor overwritten.
	mine := filepath.Join(t.TempDir(), "mine")
	if err := errors.Join(os.WriteFile(mine, []byte("precious"), 0o600), os.Symlink(mine, path+".pending")); err != nil {
		t.Fatal(err)
	}
	if err := l.drop("b"); err == nil {
		t.Error("it follows a link")
	}
	if _, err := l.kept("b"); err == nil {
		t.Error("it reads where a link leads")
	}
	if text, err := os.ReadFile(mine); err != nil || string(text) != "precious" {
		t.Errorf("%q, %v", text, err)
	}
	if err := os.Remove(path + ".pending"); err != nil {
		t.Fatal(err)
	}
	l.Close()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 3 || rows[1][2] != `Key "5", large` || rows[1][4] != "'=alice" || rows[1][7] != `0"12,3` || rows[1][8] != "first use" || rows[2][1] != "F-2" || rows[2][7] != "" {
		t.Errorf("%q, %v", rows, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLabels(path, true); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("others may read the PINs: %v", err)
	}
	open(false).Close()
	if err := os.WriteFile(path, []byte("my own table\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLabels(path, true); err == nil {
		t.Error("another file is taken for labels")
	}
}

func TestAnOrderThatDoesNotGoTogetherIsRefused(t *testing.T) {
	for name, o := range map[string]Order{
		"random without labels": {PINs: PINRandom},
		"no way to a PIN":       {},
		"too short":             {PINs: PINGiven, PINLength: 3},
		"too long":              {PINs: PINGiven, MinPIN: 64},
		"settings of no PIN":    {PINs: PINNone, AlwaysUV: true},
		"reset and kept":        {PINs: PINKept, Reset: true},
		"unknown attestation":   {PINs: PINGiven, Attestation: "indirect"},
	} {
		if err := o.Check(false); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	if err := (&Order{PINs: PINRandom, MinPIN: 6, AlwaysUV: true, Attestation: "enterprise"}).Check(true); err != nil {
		t.Error(err)
	}
}
