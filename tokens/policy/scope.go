package policy

// Scope is what an API key was made for.
type Scope string

// The scopes. Verifier is also what a RADIUS client has; System is the server
// itself at start.
const (
	ScopeAdmin     Scope = "admin"     // everything
	ScopeHelpdesk  Scope = "helpdesk"  // users and tokens, no imports, keys or clients
	ScopeVerify    Scope = "verify"    // verify codes, keys and statements, nothing else
	ScopeRead      Scope = "read"      // look at everything, change nothing
	ScopeProvision Scope = "provision" // bring tokens and users in and hand them out
	ScopeStation   Scope = "station"   // enrol FIDO keys, and see what is known of their models
	ScopeSystem    Scope = "system"    // the server itself
	ScopeInvite    Scope = "invite"    // enrol one token for oneself; whom it is for, the core looks at
)
