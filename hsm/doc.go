// Package hsm says what Watchword asks of a hardware security module, in terms
// of seeds and rows rather than of PKCS#11.
//
// # Who sees a seed
//
// A seed is in the server's memory once: during import, between the parser and
// Keystore.Wrap. From then on it exists outside the HSM only as ciphertext:
//
//	database row                                        HSM
//	+-----------------------------------------------+   +---------------------------+
//	| realm serial type algorithm digits period     |   | KEK      AES-256          |
//	| owner state PIN-MAC expiry     = Sealed.Row   |   | binding  HMAC-SHA256      |
//	| mechanism KEK-version hash len                |   | pin      HMAC-SHA256      |
//	| blob = KWP(KEK, seed padded)   = Wrapped      |   | secrets  AES-256-GCM      |
//	| HMAC(binding, Row || Wrapped)  = Binding      |   | audit    ECDSA P-256      |
//	+-----------------------------------------------+   | statement ECDSA P-256     |
//	                    |                               +---------------------------+
//	                    |                                             |
//	                    +--- C_UnwrapKey, after Binding was proven ---+
//	                                       |
//	              session key: SENSITIVE, PRIVATE, not EXTRACTABLE; HMAC only,
//	              or AES decryption only
//
// To check a code the wrapped seed is unwrapped inside the HSM and the HMAC is
// computed there; the server sees the HMAC's result, which is worth one code. The
// AES key of a token that encrypts (see Decrypter) goes the same way, to a session
// key that can only decrypt; the server sees the decrypted code.
//
// A seed that its vendor encrypted to the transport key (see Transporter) is not
// even in the server's memory once: it is unwrapped inside the HSM and wrapped
// under the KEK there.
//
//	vendor's file                     HSM
//	+----------------------------+    +---------------------------------------------+
//	| RSA-OAEP(transport, seed)  |    | transport  RSA, UNWRAP only                 |
//	+----------------------------+    |                                             |
//	              |                   |  session key: SENSITIVE, PRIVATE, and for   |
//	              +--- C_UnwrapKey ---+  one task EXTRACTABLE: padded, wrapped by   |
//	                                  |  the KEK, compared by HMAC, destroyed       |
//	              +---- C_WrapKey ----+                                             |
//	              |                   +---------------------------------------------+
//	database row: Wrapped
//
// An HSM that cannot pad it inside gives it to the server for a moment, if that
// was allowed, or refuses it; the answer says which way it took.
//
// A seed that the HSM makes itself, for an app that somebody enrols (see
// Generator), is wrapped there too and leaves it once, for its owner to see; it is
// wiped as soon as it was shown.
//
// # What this protects from
//
// Memory disclosure, core dumps, backups, stolen disks and a copied database:
// none holds a seed, and a row that was edited is refused. It does not protect
// from someone who executes code inside the server: that someone can ask the
// HSM for as many codes as the server can, for as long as they stay.
//
// The binding says that a row is one that Watchword wrote, not that it is the
// latest: whoever can write to the database can put back an older row with its
// older binding, such as that of before a token was marked lost. Counters, which
// passcodes were used, locks and whether a user is disabled are not bound either.
// 'watchword audit verify' shows what was accepted and when, a counter that went
// back, and a passcode that was accepted again.
//
// An upload that was refused and is larger than 8 MiB may leave its last few
// kilobytes in a buffer of net/http until that is used again; nothing of an
// import that was read to its end stays.
//
// SoftHSM, the default where no module is configured, is not an HSM: its keys
// lie in files, encrypted under its PIN. It keeps seeds out of the server's
// heap and out of the database, and nothing more.
package hsm
