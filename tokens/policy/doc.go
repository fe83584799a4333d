// Package policy decides who may do what. It knows nothing of the rest of the
// program: a Query is flat, and Set.Decide is a pure function of it and of the
// policies, which are Cedar's.
//
// A principal (an Admin, who is a person with a session, a Key, a Client, an
// Invitation, the System) does an action to a resource (the Installation, a Realm, a
// User, a Token) in a context. Roles are what principals are in; only those count that
// hold where the principal acts, so that no policy can make a role of one realm count
// in another. Groups and realms are what resources are in. schema.cedarschema has all
// the names, and what is known of each.
//
// What happens to a question:
//
//	realm      a principal of one realm that asks about another is denied, before any policy
//	settle     the resource becomes the narrowest that is named and that the action knows,
//	           so that each question is one that the schema allows
//	index      finds the policies that name the resource, what it is in, the principal, its
//	           roles, or else the action: of 10,000 links only those that can matter
//	scope      is compared in Go; a policy without conditions is decided by that
//	conditions that compare attributes are evaluated in Go, all others, and those that
//	           fail, by Cedar, with only those entities and attributes that they look at
//	decide     a forbid beats any permit, no permit denies, and a policy that cannot be
//	           evaluated denies, which Cedar itself would skip
//
// A property test holds all of that to a plain cedar.Authorize over every policy.
//
// The built-in policies (builtin.cedar) are what roles may do, and that people prove a
// token anew for what cannot be taken back. An installation adds policies of its own,
// and templates, which are policies with slots that links fill; Compile refuses what
// strict validation against the schema finds, what names nothing that there can be,
// and what could never apply, each with its place. Slots are filled in the policy's
// tree, never in its text. The installation's own policies are not asked where the
// server itself acts, nor where a superuser's API key for all realms changes policies:
// nobody is locked out for good.
//
// Cedar's parser knows no slots and its tree no places. So the text is cut into words
// here too: slots are found among them, and expressions that are wrong are found again
// in the text.
package policy
