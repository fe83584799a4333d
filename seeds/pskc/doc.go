// Package pskc reads Portable Symmetric Key Containers (RFC 6030): it streams
// the XML, checks the MAC of each encrypted value, decrypts it only then, and
// says what each key package holds and whether its key may be used.
//
//	input        one buffer, bounded per XML token, wiped on Close
//	xml.Decoder  no DTD, no entities, no nesting beyond maxDepth
//	tree         one KeyPackage at a time, its text in one wiped buffer
//	vault        encryption key (pre-shared or PBKDF2), MAC key
//	Key          one key package, judged; its secret is wiped by the next call
//
// What is not understood is refused with a reason: an unknown policy, another
// hash, an encrypted value without a MAC. The package depends on the standard
// library only and knows nothing of tokens.
package pskc
