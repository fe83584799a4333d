// Package pskc reads Portable Symmetric Key Containers (RFC 6030, and drafts of
// it that are still shipped): it streams the XML, checks the MAC of each
// encrypted value, decrypts it only then, and says what each key package holds
// and whether its key may be used.
//
//	input        one buffer, bounded per XML token, wiped on Close
//	xml.Decoder  no DTD, no entities, no nesting beyond maxDepth
//	tree         one KeyPackage at a time, its text in one wiped buffer
//	vault        encryption key (pre-shared or PBKDF2), MAC key
//	Key          one key, judged; its secret is wiped by the next call
//
// Where a signer's certificate is given, the file is first read whole into a
// buffer that is wiped, and its signature checked over that:
//
//	sign   one enveloped XML signature, over the whole container and nothing less
//	c14n   the canonical form that it is over, from the same decoder's tokens
//
// So what is read is what was signed. A secret that is encrypted to a public key
// is handed on as it is, with its MAC and the MAC key, which is encrypted to the
// same; this package has no private key, decrypts none and checks no such MAC.
//
// What is not understood is refused with a reason: an unknown policy, another
// hash, a value in CBC mode without a MAC. No secret is in a string, nor in an
// error. What the standard library's ciphers and hashes keep of a file's keys
// cannot be wiped; they are the file's, not the tokens'.
//
// The package depends on the standard library only and knows nothing of tokens.
package pskc
