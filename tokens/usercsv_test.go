package tokens

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// readAll reads a file of users to its end.
func readAll(r io.Reader) (*userFile, []userRecord, error) {
	f, err := readUsers(r)
	if err != nil {
		return nil, nil, err
	}
	var list []userRecord
	for {
		r, err := f.next()
		if errors.Is(err, io.EOF) {
			return f, list, nil
		}
		if err != nil {
			return f, list, err
		}
		list = append(list, r)
	}
}

// writeAll writes users with the columns that they need.
func writeAll(users []UserEntry) ([]byte, error) {
	names := map[string]bool{}
	for _, u := range users {
		for name := range u.Profile.Attributes {
			names[name] = true
		}
	}
	var b bytes.Buffer
	w, err := writeUsers(&b, slices.Sorted(maps.Keys(names)))
	if err != nil {
		return nil, err
	}
	for i := range users {
		if err := w.write(&users[i]); err != nil {
			return nil, err
		}
	}
	err = w.end()
	return b.Bytes(), err
}

func TestAFileOfUsersIsRead(t *testing.T) {
	const file = "\ufeffExternal_ID, name ,attr:site,groups,\"display\",mail,attr:Floor\r\n" +
		"4711,Alice,Berlin,\"staff; Board;;\",\"Example, \"\"Alice\"\"\",alice@example.com,\r\n" +
		"\r\n" +
		",'=bob,,,'-1+1,,'''@x\r\n" +
		"'x,-carol,'',a\\;b;DOMAIN\\group;c\\\\d,\"=1\",,3"
	f, list, err := readAll(strings.NewReader(file))
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	if !f.has("attr:Floor") || f.has("attr:floor") || !f.has("external_id") {
		t.Errorf("columns %q", f.columns)
	}
	for i, want := range []struct {
		line    int
		name    string
		profile Profile
		groups  string
	}{
		{2, "Alice", Profile{Display: `Example, "Alice"`, Mail: "alice@example.com", External: "4711", Attributes: map[string]string{"site": "Berlin"}}, `["board" "staff"]`},
		{4, "=bob", Profile{Display: "-1+1", Attributes: map[string]string{"Floor": "''@x"}}, `[]`},
		{5, "-carol", Profile{Display: "=1", External: "'x", Attributes: map[string]string{"site": "''", "Floor": "3"}}, `["a;b" "c\\d" "domain\\group"]`},
	} {
		r := list[i]
		if r.bad != "" || r.line != want.line || r.user.User.Name != want.name || !reflect.DeepEqual(r.user.User.Profile, want.profile) || fmt.Sprintf("%q", r.user.Groups) != want.groups {
			t.Errorf("record %d: %+v, %+v, want %+v", i, r, r.user.User, want)
		}
	}
}

func TestAFileThatIsNoFileOfUsersSaysWhere(t *testing.T) {
	var wide []string
	for i := range 1001 {
		wide = append(wide, fmt.Sprint("attr:a", i))
	}
	for file, say := range map[string]string{
		"":                                 "the file is empty",
		"\ufeff\n\n":                       "the file is empty",
		"display,mail\n":                   "no column name",
		"name,phone\nalice,1\n":            `line 1, column 6: a column "phone" is not known`,
		"name,attr:a b\n":                  "line 1, column 6: the name of an attribute",
		"name,attr:\n":                     "line 1, column 6: the name of an attribute",
		"name,mail,name\n":                 "line 1, column 11: a second column name",
		"name,attr:a,attr:a\n":             "line 1, column 13: a second column attr:a",
		"name\nalice\nb\"ob\n":             `line 3, column 2: this is no CSV`,
		"name,display\nalice,\"A\nbob,B\n": "this is no CSV",
		"name,\xff\n":                      "is not known",
		"name\n" + strings.Repeat("a\n", 250_001): "more than 250000 records",
		"name," + strings.Join(wide, ","):         "1002 columns",
	} {
		_, _, err := readAll(strings.NewReader(file))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), say) || !utf8.ValidString(err.Error()) {
			t.Errorf("%.40q: %v, want %q", file, err, say)
		}
	}
	big := io.MultiReader(strings.NewReader("name,display\n"), io.LimitReader(endless("alice,Alice Example of a very long name\n"), 101_000_000))
	if _, _, err := readAll(big); !errors.Is(err, ErrInvalid) {
		t.Errorf("101 MB: %v", err)
	}
	long := io.MultiReader(strings.NewReader("name,display\n"), io.LimitReader(endless("alice,"+strings.Repeat("x", 1000)+"\n"), 101_000_000))
	if _, _, err := readAll(long); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "larger than 100 MB") {
		t.Errorf("101 MB of long records: %v", err)
	}
	cut := io.MultiReader(strings.NewReader("name\nalice\n"), failing{})
	if _, list, err := readAll(cut); !errors.Is(err, ErrInvalid) || len(list) != 1 || !strings.Contains(err.Error(), "could not be read to its end") {
		t.Errorf("a file that was cut off: %v, %v", list, err)
	}
}

type endless string

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for n+len(e) <= len(p) {
		n += copy(p[n:], e)
	}
	return n, nil
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the line is down") }

func TestARecordThatIsBadSaysWhereAndTheOthersAreRead(t *testing.T) {
	const header = "name,display,mail,external_id,groups,attr:a\n"
	for row, say := range map[string]string{
		",,,,,":                                  "column 1 (name): a name is empty",
		"al\u202eice,,,,,":                       "column 1 (name): a name holds U+202E",
		" alice,,,,,":                            "column 1 (name): a name begins or ends with a space",
		"alice,\"a\nb\",,,,":                     "column 7 (display): display holds a control character",
		"alice,,nobody,,,":                       "column 8 (mail): mail is no address",
		"alice,,,\x01,,":                         "column 9 (external_id): external_id holds a control character",
		"alice,,,,a;\x01,":                       "column 10 (groups): group 2",
		"alice,,,,,\xff":                         "column 11 (attr:a): attribute a is not valid UTF-8",
		"alice,,,,," + strings.Repeat("x", 1025): "column 11 (attr:a): attribute a is longer than 1024 bytes",
		"alice,,,,":                              "it has 5 cells, and the header row 6",
		"alice,,,,,,":                            "it has 7 cells, and the header row 6",
	} {
		_, list, err := readAll(strings.NewReader(header + row + "\nbob,,,,,\n"))
		if err != nil || len(list) != 2 || !strings.HasPrefix(list[0].bad, say) || list[0].line != 2 || list[1].bad != "" || list[1].user.User.Name != "bob" {
			t.Errorf("%q: %+v, %v; want %q", row, list, err, say)
		}
	}
	var names, cells []string
	for i := range 33 {
		names, cells = append(names, fmt.Sprint("attr:a", i)), append(cells, "x")
	}
	_, list, err := readAll(strings.NewReader("name," + strings.Join(names, ",") + "\nalice," + strings.Join(cells, ",") + "\nbob,,," + strings.Join(cells[2:], ",") + "\n"))
	if err != nil || !strings.Contains(list[0].bad, "more than 32 attributes") || list[1].bad != "" {
		t.Errorf("33 attributes: %+v, %v", list, err)
	}
}

// cells are texts that a user may have, and that are trouble in files.
var cells = rapid.Custom(func(t *rapid.T) string {
	return rapid.OneOf(
		rapid.StringMatching(`['=+@＝－"\\;, -]{0,4}[a-zäß€]{0,6}[\\;'", =]{0,2}`),
		rapid.SampledFrom([]string{"", "'", "''=", "=1+1", "\\;", "a\\", "true", "1e5", "\ufefftext", "  x ", "\uff20x", " \uff0b1", "'\u00a0=1"}),
	).Draw(t, "cell")
})

// What is exported is imported as it was.
func TestUsersComeBackFromAFileAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var users []UserEntry
		var want []NewUser
		for i := range rapid.IntRange(0, 5).Draw(t, "users") {
			in := NewUserRequest{
				Name:    cells.Draw(t, "name"),
				Profile: Profile{Display: cells.Draw(t, "display"), External: cells.Draw(t, "external")},
			}
			if rapid.Bool().Draw(t, "mail") {
				in.Profile.Mail = fmt.Sprintf("=%d'@example.com", i)
			}
			in.Groups = rapid.SliceOfN(cells, 0, 4).Draw(t, "groups")
			in.Profile.Attributes = rapid.MapOfN(rapid.SampledFrom([]string{"a", "A", "x.y-z_1"}), cells, 0, 3).Draw(t, "attributes")
			u, err := newUser("", in)
			if err != nil {
				continue // no such user can be
			}
			want = append(want, u)
			users = append(users, UserEntry{User: *u.User, Groups: u.Groups})
		}
		file, err := writeAll(users)
		if err != nil {
			t.Fatal(err)
		}
		_, list, err := readAll(bytes.NewReader(file))
		if err != nil || len(list) != len(want) {
			t.Fatalf("%q: %d records, %v; want %d", file, len(list), err, len(want))
		}
		for i := range want {
			if got := list[i]; got.bad != "" || !reflect.DeepEqual(got.user, want[i]) {
				t.Fatalf("%q: %+v %+v, want %+v", file, got, got.user.User, want[i].User)
			}
		}
	})
}

// Nothing in an exported file begins a formula, or is one behind what a spreadsheet
// takes off.
func TestNoExportedCellIsAFormula(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cell := cells.Draw(t, "cell")
		out := guard(cell)
		if begin := strings.TrimLeft(out, " \u00a0"); begin != "" && strings.ContainsRune("=+-@\t\uff1d\uff0b\uff0d\uff20", []rune(begin)[0]) {
			t.Fatalf("%q is written as %q", cell, out)
		}
		if back := unguard(out); back != cell {
			t.Fatalf("%q is written as %q and read as %q", cell, out, back)
		}
	})
}

func FuzzUsersCSV(f *testing.F) {
	for _, seed := range []string{
		"name\nalice\n", "\ufeffname,display,mail,external_id,groups,attr:site\r\nalice,\"A, B\",a@b,1,a;b\\;c,x\r\n",
		"name,groups\n'=x,\\\\;\\\n", "name,attr:a\nx,\"''=\n\"\n", "name,name\n", "\"name\"\n\"\"\"\"\n", "name,display\na\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		columns, list, err := readAll(bytes.NewReader(file))
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("%v", err)
		}
		if columns == nil {
			return
		}
		var users []UserEntry
		var good []userRecord
		for _, r := range list {
			if r.line < 2 || r.line > bytes.Count(file, []byte("\n"))+1 {
				t.Fatalf("a record on line %d", r.line)
			}
			if r.bad != "" {
				continue
			}
			u := r.user.User
			if key, err := FoldName(u.Name); err != nil || key != u.Key || u.Profile.check() != nil {
				t.Fatalf("taken for a user: %+v", u)
			}
			good = append(good, r)
			users = append(users, UserEntry{User: *u, Groups: r.user.Groups})
		}
		again, err := writeAll(users)
		if err != nil {
			t.Fatal(err)
		}
		_, back, err := readAll(bytes.NewReader(again))
		if err != nil || len(back) != len(good) {
			t.Fatalf("%q is written as %q, which is %d records, %v", file, again, len(back), err)
		}
		for i := range back {
			if back[i].bad != "" || !reflect.DeepEqual(back[i].user, good[i].user) {
				t.Fatalf("%+v came back as %+v", good[i].user.User, back[i].user.User)
			}
		}
	})
}

// What one record may take of the memory is bounded: the cells of a long one cost many
// times what the file has.
func TestARecordThatNeverEndsIsNotRead(t *testing.T) {
	for name, file := range map[string]string{
		"cells":                  "name,display\nalice,A\nbob" + strings.Repeat(",", 2<<20) + "\n",
		"the header":             "name" + strings.Repeat(",", 2<<20) + "\n",
		"a cell":                 "name,display\nalice,A\nbob," + strings.Repeat("x", 2<<20) + "\n",
		"a quoted cell of lines": "name,display\nalice,A\nbob,\"" + strings.Repeat("x\n", 1<<20) + "\"\n",
		"cells on many lines":    "name,display\nalice,A\nbob" + strings.Repeat(",,,,\"\n\"", 1<<18) + "\n",
		"no quote follows":       "name,display\nalice,A\nbob,\"" + strings.Repeat(",\n", 1<<20),
	} {
		_, list, err := readAll(strings.NewReader(file))
		line := "line 3"
		if name == "the header" {
			line = "line 1"
		}
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), line) || !strings.Contains(err.Error(), "longer than") {
			t.Errorf("%s: %v", name, err)
		}
		if name != "the header" && (len(list) != 1 || list[0].user.User.Key != "alice") {
			t.Errorf("%s: %d records before it", name, len(list))
		}
	}
	// A file of many lines is none, nor are many quotes.
	file := "name,display\n"
	for i := range 20_000 {
		file += fmt.Sprintf("u%d,\"say \"\"%d\"\", or so\"\n", i, i)
	}
	if _, list, err := readAll(strings.NewReader(file)); err != nil || len(list) != 20_000 || list[7].bad != "" {
		t.Errorf("%d records, %v", len(list), err)
	}
	// Nor is the longest record that an export writes.
	u := UserEntry{User: User{Name: strings.Repeat("n", 255), Profile: Profile{
		Display: strings.Repeat(`"`, maxDisplay), Mail: strings.Repeat(`"`, maxMail-2) + "@x", External: strings.Repeat(`"`, maxExternal), Attributes: map[string]string{},
	}}}
	for i := range maxAttributes {
		u.Profile.Attributes[fmt.Sprintf("%0*d", maxAttribute, i)] = strings.Repeat(`"`, maxValue)
	}
	for i := range maxGroups {
		u.Groups = append(u.Groups, fmt.Sprintf("%03d", i)+strings.Repeat(`;`, 252))
	}
	data, err := writeAll([]UserEntry{u})
	if err != nil {
		t.Fatal(err)
	}
	if _, list, err := readAll(bytes.NewReader(data)); err != nil || len(list) != 1 || list[0].bad != "" || !reflect.DeepEqual(list[0].user.User.Profile, u.Profile) {
		t.Errorf("the longest record, of %d bytes: %v", len(data), err)
	}
}
