package pskc

import "testing"

func TestUserIsTheNameInAUserId(t *testing.T) {
	for text, want := range map[string]string{
		"UID=jsmith,DC=example-bank,DC=net":    "jsmith",
		"DC=example-bank,DC=net":               "",
		"CN=Alice Smith, OU=Sales, O=ACME":     "Alice Smith",
		"cn=x,uid=alice":                       "alice",
		"OU=a+UID=b,O=c":                       "b",
		"0.9.2342.19200300.100.1.1=z,CN=carol": "carol",
		`CN=Smith\, John`:                      "Smith, John",
		`CN="Smith, John",O=x`:                 "Smith, John",
		`CN=Lu\C4\8Di\C4\87`:                   "Lučić",
		`UID=a\ ,O=x`:                          "a ",
		"UID= dave ;O=x":                       "dave",
		"UID=first,UID=second":                 "first",
		"alice":                                "alice",
		"alice@example.com":                    "alice@example.com",
		`DOMAIN\alice`:                         `DOMAIN\alice`,
		"Alice Smith, Sales":                   "Alice Smith, Sales",
		"a\nb":                                 "",
		"":                                     "",
		`UID=alice\`:                           `UID=alice\`,
		`UID="alice`:                           `UID="alice`,
		`UID=\ff`:                              `UID=\ff`,
	} {
		if got := userOf(text); got != want {
			t.Errorf("%q names %q, want %q", text, got, want)
		}
	}
}

func FuzzUserId(f *testing.F) {
	for _, text := range []string{"UID=jsmith,DC=net", `CN="a,b"+x=\2C`, "alice", "=", `a=\`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if name := userOf(text); len(name) > maxUser {
			t.Errorf("a name of %d bytes", len(name))
		}
	})
}
