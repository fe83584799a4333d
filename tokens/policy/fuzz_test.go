package policy

import (
	"errors"
	"net/netip"
	"testing"
	"time"
	"unicode/utf8"
)

// Whatever the text, it is a policy that decides, or it is refused with a place in it.
func FuzzCompile(f *testing.F) {
	for _, p := range tenPolicies().Policies {
		f.Add(p.Text, false)
	}
	f.Add(deskTemplate, true)
	f.Add(builtinText, false)
	for _, text := range []string{
		"", "permit", "permit (principal == ?principal, action, resource", "forbid (principal, action, resource) when { if \"\\u{41}\" like \"*\\*\" then [1, -9223372036854775808].isEmpty() else {a: 1}.a == 1 };",
		"permit (principal, action, resource) when { !!!!!!!!!!-----1 == 1 };", "/* */ // ?x\npermit (principal in ?principal, action, resource in ?resource) unless { context has a.b.c };",
		"permit (principal, action, resource) when { ip(\"\").isInRange(ip(\"::/0\")) || decimal(\"1.0\").lessThan(decimal(\"x\")) || context.now < datetime(\"2026-01-01\") };",
		"@id(\"a\") @b permit (principal is Watchword::Admin in Watchword::Role::\"a\", action in [], resource) when { true };", "\xff\x00", "permit (principal, action, resource) when { context[\"hour\"] > 3 && resource[\"type\"] == \"\\\"\" };",
	} {
		f.Add(text, true)
		f.Add(text, false)
	}
	f.Fuzz(func(t *testing.T, text string, template bool) {
		src := Source{Policies: []Item{{ID: "p", Text: text}}}
		if template {
			src = Source{Templates: []Item{{ID: "p", Text: text}}}
		}
		set, err := Compile(src)
		if err != nil {
			var e *Errors
			if !errors.As(err, &e) || len(e.Problems) == 0 {
				t.Fatalf("%q: %v", text, err)
			}
			for _, p := range e.Problems {
				if p.ID != "p" || p.Says == "" || !placedIn(text, p) {
					t.Fatalf("%q: %+v", text, p)
				}
			}
			return
		}
		for _, q := range []*Query{verifyQuery(), at(KindAdmin, PolicyPut, Superuser), at(KindInvitation, TokenEnrol)} {
			if got, want := set.Decide(q), plain(set, *q); got.Allow != want.Allow || len(got.Faults) != len(want.Faults) {
				t.Fatalf("%q: %+v, Cedar says %+v", text, got, want)
			}
		}
	})
}

// placedIn says whether a place is one of the text, or the end of it.
func placedIn(text string, p Problem) bool {
	line, column := 1, 1
	for i, r := range text {
		if line == p.Line && column == p.Column {
			return true
		}
		if column++; r == '\n' {
			line, column = line+1, 1
		} else if r == utf8.RuneError && i > len(text) {
			return false
		}
	}
	return p.Line == 0 && p.Column == 0 || line == p.Line && column == p.Column
}

// Whatever is asked, there is an answer, and it is that of Cedar.
func FuzzDecide(f *testing.F) {
	set, err := Compile(tenPolicies())
	if err != nil {
		f.Fatal(err)
	}
	f.Add("Admin", "corp/ann", "corp", "superuser", "verify", "Token", "corp", "ann", "T1", "vpn", "fido", "a", int64(3), int64(1_700_000_000), "http", true, int64(100), "nas", []byte{10, 1, 2, 3})
	f.Add("Key", "", "", "", "", "", "", "", "", "", "", "", int64(-1), int64(-1<<62), "", false, int64(-1), "", []byte(nil))
	f.Add("System", "/", "%", "superuser", "policy.put", "User", "a/b", "%2F", "", "", "", "", int64(1<<62), int64(1<<62), "\xff", true, int64(1<<62), "\x00", make([]byte, 16))
	f.Fuzz(func(t *testing.T, kind, id, in, role, action, typ, realm, user, serial, group, tokenKind, aaguid string, unused, now int64, path string, mfa bool, age int64, nas string, address []byte) {
		q := Query{
			Principal: Principal{Kind: Kind(kind), ID: id, Realm: in, Roles: []Role{Role(role), Role(role)}}, Action: Action(action),
			Resource: Resource{Type: Type(typ), Realm: realm, User: user, Serial: serial, Groups: []string{group, group}, Kind: tokenKind, AAGUID: aaguid, Unused: unused},
			Context:  Context{Now: time.Unix(now, 0), Path: path, MFA: mfa, MFAAge: time.Duration(age), NAS: nas},
		}
		q.Context.Source, _ = netip.AddrFromSlice(address)
		d := set.Decide(&q)
		if d.Allow == (d.Reason != "") || d.Allow && (len(d.Policies) == 0 || len(d.Faults) > 0) || d.Allow && in != "" && in != realm {
			t.Fatalf("%+v: %+v", q, d)
		}
		set.Applying(&q.Principal, &q.Resource)
	})
}
