package tokens

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

func TestNamesAreComparedFoldedAndComposed(t *testing.T) {
	for _, same := range [][]string{
		{"alice", "Alice", "ALICE"},
		{"straße", "STRASSE", "Strasse", "STRAẞE"},
		{"jürgen", "JÜRGEN", "ju\u0308rgen", "JU\u0308RGEN"},
		{"σίσυφος", "ΣΊΣΥΦΟΣ", "σίσυφοσ"},
		{"kelvin", "\u212Aelvin"},
		{"ångström", "\u212Bngström"},
		{"ﬁona", "fiona", "FIONA"},
		{"\u13A0\u13F5", "\uAB70\u13FD"}, // Cherokee
		{"ΐ", "\u03B9\u0308\u0301", "Ϊ\u0301"},
	} {
		want, err := FoldName(same[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range same {
			if got, err := FoldName(name); err != nil || got != want {
				t.Errorf("FoldName(%q) = %q, %v, want %q as for %q", name, got, err, want, same[0])
			}
		}
	}
	for _, other := range [][2]string{{"alice", "alicé"}, {"i", "ı"}, {"alice", "a lice"}, {"аlice", "alice"}} {
		a, _ := FoldName(other[0])
		b, _ := FoldName(other[1])
		if a == b {
			t.Errorf("%q and %q are one name, %q", other[0], other[1], a)
		}
	}
}

func TestWhatCannotBeANameIsRefused(t *testing.T) {
	for _, name := range []string{
		"", " ", " alice", "alice ", "\talice", "alice\u00a0", "a\x00b", "a\nb", "a\x7fb", "a\u0085b", "a\xffb", "\xc3",
		strings.Repeat("a", 256), strings.Repeat("ŉ", 127), // folded, the latter has 381 bytes
	} {
		if key, err := FoldName(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("FoldName(%q) = %q, %v, want ErrInvalid", name, key, err)
		}
	}
	if _, err := FoldName(strings.Repeat("a", 255)); err != nil {
		t.Errorf("a name of 255 bytes: %v", err)
	}
}

func TestTheDefaultRealmHidesItself(t *testing.T) {
	if got, err := ParseRealm(""); got != DefaultRealm || err != nil {
		t.Errorf("no realm is %q, %v", got, err)
	}
	if got, err := ParseRealm("DEFAULT"); got != DefaultRealm || err != nil {
		t.Errorf("DEFAULT is %q, %v", got, err)
	}
	if got, err := ParseRealm("Corp"); got != "corp" || err != nil {
		t.Errorf("Corp is %q, %v", got, err)
	}
	if _, err := ParseRealm("a\x00"); !errors.Is(err, ErrInvalid) {
		t.Errorf("a realm with a NUL: %v", err)
	}
}

// checkFolded states what must hold of any name that is not refused.
func checkFolded(t interface{ Fatalf(string, ...any) }, name string) {
	key, err := FoldName(name)
	if err != nil {
		if !errors.Is(err, ErrInvalid) || key != "" {
			t.Fatalf("FoldName(%q) = %q, %v", name, key, err)
		}
		return
	}
	switch {
	case key == "" || len(key) > 255 || !utf8.ValidString(key):
		t.Fatalf("FoldName(%q) = %q, which is no name", name, key)
	case !norm.NFC.IsNormalString(key):
		t.Fatalf("FoldName(%q) = %q, which is not NFC", name, key)
	}
	if again, err := FoldName(key); err != nil || again != key {
		t.Fatalf("FoldName(%q) = %q, folded again %q, %v", name, key, again, err)
	}
	if d, err := FoldName(norm.NFD.String(name)); len(norm.NFD.String(name)) <= 255 && (err != nil || d != key) {
		t.Fatalf("FoldName(%q) = %q, decomposed %q, %v", name, key, d, err)
	}
}

func TestFoldingANameTwiceChangesNothing(t *testing.T) {
	for r := rune(1); r <= 0x1ffff; r++ { // no letter lies beyond
		if utf8.ValidRune(r) {
			checkFolded(t, string(r))
		}
	}
	marks := []rune{0x300, 0x301, 0x307, 0x308, 0x30c, 0x323, 0x327, 0x331, 0x342, 0x345, 'i', 'I', 'ß', 'ŉ', 'ﬁ', 'ſ'}
	rapid.Check(t, func(t *rapid.T) {
		runes := rapid.SliceOfN(rapid.OneOf(rapid.SampledFrom(marks), rapid.Rune()), 1, 8).Draw(t, "runes")
		checkFolded(t, string(runes))
	})
}

func FuzzFoldName(f *testing.F) {
	for _, s := range []string{"alice", "STRASSE", "ju\u0308rgen", "ŉŉŉ", "\u0345\u0301", "a\x00", " a", "\xff", `CORP\alice`, "alice@corp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) { checkFolded(t, name) })
}
