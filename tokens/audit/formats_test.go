package audit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"watchword/tokens/audit"
)

// sample is a record whose texts hold what formats trip over.
func sample(action, outcome string) audit.Record {
	records, _ := audit.Append(audit.Head{Chain: 7, Seq: 41, Hash: [32]byte{1}}, []audit.Event{{
		Time: time.Date(2026, 3, 1, 12, 30, 45, 120_000, time.UTC), Action: action, Outcome: outcome, Realm: "default",
		User: "ali\"ce]\\", Serial: "OT-1", Actor: "key:0123", Client: "vpn", Source: "192.0.2.7:40000", Reason: "a\nb\u2028<&>ü🔑",
		Detail: []audit.Field{{Name: "n\"", Value: "v]"}, {}, {Name: "heads", Value: "1:2:ff"}},
	}})
	return records[0]
}

func TestALineComesBackAsHashed(t *testing.T) {
	r := sample("verify", "accept")
	line := r.AppendJSON(nil)
	if bytes.ContainsAny(line, "\n\r") {
		t.Errorf("a line of the audit is more than one: %q", line)
	}
	again, err := audit.ParseJSON(line)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(again, r) || audit.Sum([32]byte{1}, 7, 42, &again.Event) != r.Hash {
		t.Errorf("read %+v\nwrote %+v", again, r)
	}
	want := `{"chain":7,"seq":42,"time":"2026-03-01T12:30:45.000120Z","action":"verify","outcome":"accept","realm":"default",` +
		`"user":"ali\"ce]\\","serial":"OT-1","actor":"key:0123","client":"vpn","source":"192.0.2.7:40000","reason":"a\nb\u2028<&>ü🔑",` +
		`"detail":[{"name":"n\"","value":"v]"},{"name":"","value":""},{"name":"heads","value":"1:2:ff"}],"hash":"` + fmt.Sprintf("%x", r.Hash) + `"}`
	if string(line) != want {
		t.Errorf("the schema of a line changed, which receivers rely on:\n%s\n%s", line, want)
	}
}

func TestWhatIsNoLineIsRefused(t *testing.T) {
	r := sample("verify", "accept")
	line := string(r.AppendJSON(nil))
	for _, text := range []string{
		"", "{}", "null", line[:len(line)-1], line + "x", line + line, strings.Replace(line, `"chain":7,`, "", 1),
		strings.Replace(line, `"hash":"`, `"hash":"00`, 1), strings.Replace(line, `"seq":42`, `"seq":"42"`, 1),
		strings.Replace(line, "2026-03-01T", "yesterday ", 1),
	} {
		if _, err := audit.ParseJSON([]byte(text)); err == nil {
			t.Errorf("%q is read as a line of the audit", text)
		}
	}
}

func TestAReceiverChecksTheChainByItself(t *testing.T) {
	var events []audit.Event
	for i := range 5 {
		events = append(events, audit.Event{Time: time.Unix(int64(i), 0), Action: "a", Detail: []audit.Field{{Name: "n", Value: fmt.Sprint(i)}}})
	}
	records, head := audit.Append(audit.Head{Chain: 3}, events)
	var lines [][]byte
	for i := range records {
		lines = append(lines, records[i].AppendJSON(nil))
	}
	follow := func(lines ...[]byte) (fresh int, err error) {
		var f audit.Follower
		for _, line := range lines {
			r, err := audit.ParseJSON(line)
			if err != nil {
				return fresh, err
			}
			ok, err := f.Next(&r)
			if err != nil {
				return fresh, err
			}
			if ok {
				fresh++
			}
		}
		if fresh == len(records) && f.Heads()[3] != head {
			return fresh, fmt.Errorf("it ends in %v", f.Heads()[3])
		}
		return fresh, nil
	}
	if n, err := follow(lines...); n != 5 || err != nil {
		t.Errorf("the whole chain: %d, %v", n, err)
	}
	if n, err := follow(lines[0], lines[1], lines[0], lines[1], lines[2], lines[2], lines[3], lines[4]); n != 5 || err != nil {
		t.Errorf("with repeats: %d, %v", n, err)
	}
	for name, list := range map[string][][]byte{
		"a gap":      {lines[0], lines[2]},
		"no start":   {lines[1]},
		"altered":    {lines[0], bytes.Replace(lines[1], []byte(`"value":"1"`), []byte(`"value":"9"`), 1)},
		"rewritten":  {lines[0], lines[1], bytes.Replace(lines[1], []byte(`"hash":"`+fmt.Sprintf("%x", records[1].Hash[:2])), []byte(`"hash":"0000`), 1)},
		"reordered":  {lines[0], lines[2], lines[1]},
		"renumbered": {lines[0], bytes.Replace(lines[2], []byte(`"seq":3`), []byte(`"seq":2`), 1)},
	} {
		if _, err := follow(list...); err == nil {
			t.Errorf("%s is not noticed", name)
		}
	}
}

// parsed is a message of RFC 5424 as a receiver takes it apart.
type parsed struct {
	pri                           int
	time, host, app, proc, id, sd string
	params                        [][2]string
	message                       string
}

// parse reads by the grammar of RFC 5424 section 6, strictly.
func parse(m string) (p parsed, err error) {
	bad := func(what string) (parsed, error) { return p, fmt.Errorf("%s at %q", what, m) }
	if !utf8.ValidString(m) {
		return bad("not UTF-8")
	}
	head, rest, ok := strings.Cut(m, ">1 ")
	if !ok || !strings.HasPrefix(head, "<") {
		return bad("no PRI")
	}
	if p.pri, err = strconv.Atoi(head[1:]); err != nil {
		return bad("PRI")
	}
	m = rest
	for _, f := range []*string{&p.time, &p.host, &p.app, &p.proc, &p.id} {
		if *f, m, ok = strings.Cut(m, " "); !ok || *f == "" || strings.ContainsFunc(*f, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return bad("a field of the header")
		}
	}
	if len(p.host) > 255 || len(p.app) > 48 || len(p.proc) > 128 || len(p.id) > 32 {
		return bad("a field that is too long")
	}
	if m, ok = strings.CutPrefix(m, "["); !ok {
		return bad("no structured data")
	}
	i := strings.IndexAny(m, " ]")
	p.sd, m = m[:i], m[i:]
	for !strings.HasPrefix(m, "]") {
		name, rest, ok := strings.Cut(m[1:], `="`)
		if m[0] != ' ' || !ok || name == "" || len(name) > 32 || strings.ContainsAny(name, "= ]\"") {
			return bad("a parameter's name")
		}
		m = rest
		var value strings.Builder
		for {
			if m == "" {
				return bad("a value that does not end")
			}
			c, size := utf8.DecodeRuneInString(m)
			m = m[size:]
			if c == '"' {
				break
			}
			if c == ']' {
				return bad("a bracket that is not escaped")
			}
			if c == '\\' {
				c, size = utf8.DecodeRuneInString(m)
				if !strings.ContainsRune(`"\]`, c) {
					return bad("an escape of nothing")
				}
				m = m[size:]
			}
			value.WriteRune(c)
		}
		p.params = append(p.params, [2]string{name, value.String()})
	}
	if p.message, ok = strings.CutPrefix(m, "] \xEF\xBB\xBF"); !ok {
		return bad("no byte order mark")
	}
	return p, nil
}

func TestASyslogMessageIsOfRFC5424(t *testing.T) {
	for _, c := range []struct {
		action, outcome, reason string
		pri                     int
	}{
		{"verify", "accept", "accepted", 13*8 + 6}, {"verify", "reject", "wrong_code", 13*8 + 5}, {"token.lost", "ok", "", 13*8 + 6},
		{"token.lost", "denied", "forbidden", 13*8 + 4}, {"token.lost", "refused", "state", 13*8 + 5}, {"x", "error", "", 13*8 + 3},
		{"verify", "reject", "tampered", 13*8 + 2}, {"verify", "reject", "cloned", 13*8 + 2},
	} {
		r := sample(c.action, c.outcome)
		r.Reason = c.reason
		p, err := parse(string(r.AppendSyslog(nil, "node1.example")))
		if err != nil {
			t.Fatal(err)
		}
		if p.pri != c.pri || p.time != "2026-03-01T12:30:45.000120Z" || p.host != "node1.example" || p.app != "watchword" ||
			p.proc != "-" || p.id != c.action || p.sd != "watchword@32473" {
			t.Errorf("%+v makes %+v", c, p)
		}
		if !slices.Contains(p.params, [2]string{"user", `ali"ce]\`}) || !slices.Contains(p.params, [2]string{"seq", "42"}) {
			t.Errorf("parameters %q", p.params)
		}
		if p.message != string(r.AppendJSON(nil)) {
			t.Errorf("message %s", p.message)
		}
	}
	for host, want := range map[string]string{"": "-", "a b\nc": "abc", "ü": "-", strings.Repeat("h", 300): strings.Repeat("h", 255)} {
		r := sample("verify", "accept")
		if p, err := parse(string(r.AppendSyslog(nil, host))); err != nil || p.host != want {
			t.Errorf("host %q is %q, %v", host, p.host, err)
		}
	}
}

func TestAFrameSaysHowManyOctetsItHas(t *testing.T) {
	if got := string(audit.AppendFrame([]byte("x"), []byte("ü1"))); got != "x3 ü1" {
		t.Errorf("%q", got)
	}
}

// ocsfRequired are the attributes that OCSF 1.3.0 requires, of every event and by
// class, and one of those of which it requires at least one.
var ocsfRequired = map[float64]struct {
	category   float64
	activities []float64
	required   []string
	oneOf      []string
}{
	3001: {3, []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 99}, []string{"user"}, nil},
	3002: {3, []float64{1, 2, 3, 4, 5, 6, 99}, []string{"user"}, []string{"service", "dst_endpoint"}},
	3004: {3, []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 99}, []string{"entity"}, nil},
	6003: {6, []float64{1, 2, 3, 4, 99}, []string{"actor", "api", "src_endpoint"}, nil},
}

var ocsfObjects = map[string]struct{ required, oneOf []string }{
	"metadata":     {[]string{"product", "version"}, nil},
	"product":      {[]string{"vendor_name"}, nil},
	"user":         {nil, []string{"account", "name", "uid"}},
	"actor":        {nil, []string{"process", "user", "invoked_by", "session", "app_name", "app_uid"}},
	"api":          {[]string{"operation"}, nil},
	"entity":       {nil, []string{"name", "uid", "device", "group", "org", "policy", "user"}},
	"src_endpoint": {nil, []string{"ip", "uid", "name", "hostname", "svc_name", "instance_uid", "interface_uid", "interface_name"}},
}

// checkOCSF holds an event against those tables.
func checkOCSF(event []byte) (class float64, err error) {
	var e map[string]any
	if err := json.Unmarshal(event, &e); err != nil {
		return 0, err
	}
	for _, name := range []string{"activity_id", "category_uid", "class_uid", "type_uid", "time", "metadata", "severity_id"} {
		if e[name] == nil {
			return 0, fmt.Errorf("%s is missing", name)
		}
	}
	class = e["class_uid"].(float64)
	want, ok := ocsfRequired[class]
	id := e["activity_id"].(float64)
	switch {
	case !ok:
		return class, fmt.Errorf("class %v", class)
	case e["category_uid"] != want.category:
		return class, fmt.Errorf("category %v of class %v", e["category_uid"], class)
	case e["type_uid"] != class*100+id:
		return class, fmt.Errorf("type %v of class %v and activity %v", e["type_uid"], class, id)
	case !slices.Contains(want.activities, id):
		return class, fmt.Errorf("class %v has no activity %v", class, id)
	case id == 99 && e["activity_name"] == "":
		return class, fmt.Errorf("another activity without a name")
	case !slices.Contains([]any{0., 1., 2., 3., 4., 5., 6., 99.}, e["severity_id"]) || !slices.Contains([]any{0., 1., 2., 99.}, e["status_id"]):
		return class, fmt.Errorf("severity %v, status %v", e["severity_id"], e["status_id"])
	}
	var object func(name string, v map[string]any) error
	object = func(name string, v map[string]any) error {
		rule := ocsfObjects[name]
		if name == "" {
			rule.required, rule.oneOf = want.required, want.oneOf
		}
		has := func(n string) bool { return v[n] != nil && v[n] != "" }
		for _, n := range rule.required {
			if !has(n) {
				return fmt.Errorf("%s.%s is missing", name, n)
			}
		}
		if rule.oneOf != nil && !slices.ContainsFunc(rule.oneOf, has) {
			return fmt.Errorf("%s has none of %v", name, rule.oneOf)
		}
		for n, inner := range v {
			if inner, ok := inner.(map[string]any); ok && n != "unmapped" {
				if err := object(n, inner); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return class, object("", e)
}

func TestAnEventHasWhatOCSFRequires(t *testing.T) {
	bare := func(action, outcome string) audit.Record {
		r := sample(action, outcome)
		r.User, r.Serial, r.Actor, r.Client, r.Source, r.Detail = "", "", "", "", "", nil
		return r
	}
	classes := map[string]float64{
		"verify": 3002, "session.start": 3002, "session.end": 3002, "user.add": 3001, "user.pin": 3001, "token.lost": 3001,
		"role.grant": 3001, "token.note": 3004, "policy.put": 3004, "token.list": 6003, "audit.verify": 6003, "audit.checkpoint": 6003,
		"server.start": 6003, "import.publish": 3004, "made.up": 3004,
	}
	for action, want := range classes {
		for _, outcome := range []string{"ok", "accept", "reject", "denied", "error", "refused", ""} {
			r := sample(action, outcome)
			event := r.AppendOCSF(nil, "1.0")
			if class, err := checkOCSF(event); err != nil || class != want {
				t.Errorf("%s is of class %v, not %v: %v\n%s", action, class, want, err, event)
			}
			r = bare(action, outcome)
			if _, err := checkOCSF(r.AppendOCSF(nil, "")); err != nil {
				t.Errorf("%s by nobody: %v", action, err)
			}
		}
	}
	r := sample("verify", "accept")
	var e struct {
		Time     int64
		StatusID int `json:"status_id"`
		Metadata struct{ UID string }
		User     struct{ Name, Domain string }
		Src      struct {
			IP   string
			Port int
		} `json:"src_endpoint"`
		Unmapped json.RawMessage
	}
	if err := json.Unmarshal(r.AppendOCSF(nil, "1.0"), &e); err != nil {
		t.Fatal(err)
	}
	if e.Time != r.Time.UnixMilli() || e.StatusID != 1 || e.Metadata.UID != "7-42" || e.User.Name != r.User || e.User.Domain != "default" ||
		e.Src.IP != "192.0.2.7" || e.Src.Port != 40000 {
		t.Errorf("%+v", e)
	}
	if again, err := audit.ParseJSON(e.Unmapped); err != nil || !reflect.DeepEqual(again, r) {
		t.Errorf("what is not mapped is not all of it: %+v, %v", again, err)
	}
}

// FuzzFormats has each format hold whatever a record says, for strict receivers.
func FuzzFormats(f *testing.F) {
	f.Add("verify", "accept", "alice", "A1", "key:1", "192.0.2.1:1", "why", "n", "v", int64(1_700_000_000_000_001))
	f.Add("", "", "]\"\\", "\x00", "admin:r/u", "::1", "\xff", "=", "\n", int64(-1))
	f.Fuzz(func(t *testing.T, action, outcome, user, serial, actor, source, reason, name, value string, us int64) {
		at := time.UnixMicro(us).UTC()
		if at.Year() < 1 || at.Year() > 9999 {
			t.Skip("RFC 3339 has no such year")
		}
		records, _ := audit.Append(audit.Head{Chain: 1, Seq: 1}, []audit.Event{{
			Time: at, Action: action, Outcome: outcome, Realm: reason, User: user, Serial: serial, Actor: actor, Client: name, Source: source,
			Reason: reason, Detail: []audit.Field{{Name: name, Value: value}},
		}})
		r := records[0]
		again, err := audit.ParseJSON(r.AppendJSON(nil))
		if err != nil || !reflect.DeepEqual(again, r) || audit.Sum([32]byte{}, 1, 2, &again.Event) != r.Hash {
			if !r.Time.IsZero() {
				t.Fatalf("read %+v\nwrote %+v, %v", again, r, err)
			}
		}
		p, err := parse(string(r.AppendSyslog(nil, user)))
		if err != nil || p.message != string(r.AppendJSON(nil)) {
			t.Fatalf("syslog: %v", err)
		}
		if _, err := checkOCSF(r.AppendOCSF(nil, value)); err != nil {
			t.Fatalf("OCSF: %v\n%s", err, r.AppendOCSF(nil, value))
		}
	})
}
