package tokens

import (
	"errors"
	"strings"
	"testing"
	"unicode"
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

// What does not show is refused: with it a name would look like another, or, with
// the controls of direction, be read backwards.
func TestNamesThatLookLikeOthersAreRefused(t *testing.T) {
	hidden := []rune{
		0x061C, 0x200E, 0x200F, 0x202A, 0x202B, 0x202C, 0x202D, 0x202E, 0x2066, 0x2067, 0x2068, 0x2069, // direction
		0x200B, 0x2060, 0xFEFF, // spaces and breaks without width
		0x00AD, 0x034F, 0x115F, 0x1160, 0x180E, 0x2061, 0x2064, 0x206A, 0x3164, 0xFFA0, 0xFFF9, 0xE0001, 0xE0041, // the rest
	}
	for _, r := range hidden {
		for _, name := range []string{"alice" + string(r), string(r) + "alice", "ali" + string(r) + "ce", "é" + string(r), string(r), "مریم" + string(r)} {
			if key, err := FoldName(name); !errors.Is(err, ErrInvalid) {
				t.Errorf("FoldName(%+q) = %q, %v, want ErrInvalid", name, key, err)
			}
		}
	}
	for _, name := range []string{
		"ali\u200dce", "ali\u200cce", "alice\u200d", "\u200calice", "\u200d", "\u200c", // Latin has no joiners,
		"\U0001F469\u200d\U0001F4BB", "1\u200c2", "а\u200cб", "ab\u200cا", "ا\u200cab", // nor have emoji, digits and Cyrillic,
		"می\u200dخواهم", "م\u200c", "\u200cم", "م\u200c م", "م\u200c\u200cم", // and Arabic only one kind, between letters;
		"\u0915\u200d\u0937", "\u0915\u200c\u0937", // Devanagari only after a virama;
		"\ufe0f", "\ufe0f alice", "alice \ufe0f", // and a name needs something that shows
	} {
		if key, err := FoldName(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("FoldName(%+q) = %q, %v, want ErrInvalid", name, key, err)
		}
	}
}

// Where spelling has a joiner a name may have it, and is the same name without.
func TestJoinersThatSpellingAsksForMakeNoOtherName(t *testing.T) {
	for _, same := range [][]string{
		{"علی\u200cرضا", "علیرضا"},                         // Persian: Alireza
		{"مُ\u200cم", "مُم"},                               // a vowel sign between
		{"ශ්\u200dරී", "ශ්රී"},                             // Sinhala: Sri
		{"രാജന്\u200d", "രാജന്"},                           // Malayalam: Rajan
		{"\u0915\u094d\u200d\u0937", "\u0915\u094d\u0937"}, // Devanagari
		{"\u0915\u094d\u200c\u0937", "\u0915\u094d\u0937"},
		{"辻\U000E0100", "辻"}, // a form of the character, as Japanese family names have it
		{"☃\ufe0f", "☃"},
	} {
		want, err := FoldName(same[1])
		if err != nil {
			t.Fatal(err)
		}
		if got, err := FoldName(same[0]); err != nil || got != want {
			t.Errorf("FoldName(%+q) = %+q, %v, want %+q", same[0], got, err, want)
		}
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
	case strings.ContainsFunc(key, func(r rune) bool {
		return r == 0x200B || r == 0x200C || r == 0x200D || unicode.Is(unicode.Bidi_Control, r) || unicode.Is(unicode.Variation_Selector, r)
	}):
		t.Fatalf("FoldName(%q) = %+q, which does not show as a whole", name, key)
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
	marks := []rune{0x200C, 0x200D, 0x94D, 0x915, 0x93C, 0x627, 0x653, 0x64B, 0xFE0F, 0x202E, ' ', 0x300, 0x301, 0x307, 0x308, 0x30c, 0x323, 0x327, 0x331, 0x342, 0x345, 'i', 'I', 'ß', 'ŉ', 'ﬁ', 'ſ'}
	rapid.Check(t, func(t *rapid.T) {
		runes := rapid.SliceOfN(rapid.OneOf(rapid.SampledFrom(marks), rapid.Rune()), 1, 8).Draw(t, "runes")
		checkFolded(t, string(runes))
	})
}

func FuzzFoldName(f *testing.F) {
	for _, s := range []string{"alice", "STRASSE", "ju\u0308rgen", "ŉŉŉ", "\u0345\u0301", "a\x00", " a", "\xff", "م\u200cم", "\u0915\u094d\u200d", "ali\u202ece", `CORP\alice`, "alice@corp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) { checkFolded(t, name) })
}
