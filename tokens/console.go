package tokens

import "watchword/tokens/policy"

// consoleID names the sign-in page.
const consoleID = "console"

// ConsolePrincipal is the sign-in page of this server, where anybody may show a key
// from this network address. It may verify, and nothing else.
func ConsolePrincipal(source string) Principal {
	return Principal{Kind: KindSystem, ID: consoleID, Name: consoleID, Scope: policy.ScopeVerify, Source: source}
}

// anybody says whether nobody answers for who asks: not even an application.
func (p Principal) anybody() bool { return p.Kind == KindSystem && p.ID == consoleID }
