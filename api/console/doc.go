// Package console is what people see of Watchword in a browser: a page where a
// person who was invited enrols a security key or an authenticator app, and a page
// that shows what an application gets when somebody signs in with a key.
//
// Pages are made on the server and work without cookies. JavaScript is there for
// WebAuthn alone, which has no other way; it is one file of our own. Nothing comes
// from another origin, and the Content-Security-Policy allows nothing else.
//
// Like every transport it decides nothing: whom an invitation is for, what may be
// enrolled and whether an answer is right is the core's business, and so is the
// audit. The seed of a software token passes through once, on its way to the
// person's phone: it stands in no string and no template, and the buffers it went
// through are wiped.
package console
