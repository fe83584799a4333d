package tokens

import "watchword/tokens/policy"

// ConsolePrincipal is the sign-in page of this server, where anybody may show a key
// from this network address. It may verify, and nothing else.
func ConsolePrincipal(source string) Principal {
	return Principal{Kind: KindSystem, ID: "console", Name: "console", Scope: policy.ScopeVerify, Source: source}
}
