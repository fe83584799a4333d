package policy

import (
	"errors"
	"strings"
	"testing"
)

func TestAFileHoldsPoliciesByTheirIDs(t *testing.T) {
	src, err := ReadFile(`// what the desk may not
@id("no-revoking")
forbid (principal, action == Watchword::Action::"token.revoke", resource)
unless { context.path == "; @id(\"x\") ?principal" };

@advice("a; b")
@id("resync") permit (principal in ?principal, action, resource); /* ; */
@id("last")permit(principal,action,resource);
// the end
`)
	if err != nil || len(src.Policies) != 2 || len(src.Templates) != 1 {
		t.Fatalf("%+v, %v", src, err)
	}
	if p := src.Policies[0]; p.ID != "no-revoking" || !strings.HasPrefix(p.Text, "// what the desk") || !strings.HasSuffix(p.Text, "};") {
		t.Errorf("%+v", p)
	}
	if src.Templates[0].ID != "resync" || src.Policies[1].ID != "last" {
		t.Errorf("%+v", src)
	}
	if _, err := Compile(src); err != nil {
		t.Error(err)
	}
	for text, want := range map[string]string{
		"permit (principal, action, resource);":                 "line 1, column 1: the policy has no id",
		"@id(\"a\") permit (principal, action, resource)":       "line 1, column 1: what begins here does not end",
		"@id(\"a\") permit (principal, action, resource); \"":   "line 1, column 48: what begins here",
		"@id(\"a\") permit (principal, action, resource);\n /*": "line 2, column 2: what begins here",
		"@id(7) permit (principal, action, resource);":          "has no id",
		"@name(\"a\")\n permit (principal, action, resource);":  "line 1, column 1: the policy has no id",
	} {
		_, err := ReadFile(text)
		var list *Errors
		if !errors.As(err, &list) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if src, err := ReadFile(" \n// nothing\n"); err != nil || len(src.Policies) != 0 {
		t.Errorf("nothing: %+v, %v", src, err)
	}
}
