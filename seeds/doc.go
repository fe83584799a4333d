// Package seeds imports what token makers ship: it tells a seed file's format
// from its content, reads it record by record and hands the tokens to the core,
// which wraps each seed in the HSM and stores it.
//
//	file -> containers -> Detect -> Reader.Next ... Next -> chunks -> core: wrap, stage -> publish or discard
//	   \-> SHA-256 of the file as it came
//
// A container is a zip archive or a PGP message around the file. It is unpacked
// as it is read, and is certain to be intact only at its end; that an error shows
// there is enough, because nothing is published before.
//
// A file is never held in memory as a whole and never written to disk. A seed
// is in the clear in three places, each wiped when its turn is over: the
// reader's input buffer, its one Record, and the chunk on its way to the core.
// No error, report or log holds a seed.
//
// What remains. Decompressors, ciphers and hashes hold pieces of a file, and
// those of a library cannot be wiped. So zip archives are read here, and of a PGP
// message the library (go-crypto) sees only keys, session keys and signatures;
// the window of the standard library's decompressor is written over. A test looks
// for seeds in the whole heap after an import. What stays in memory until it is
// collected, and cannot be wiped, opens a file but is no seed: the private PGP
// key, once its passphrase was applied, session keys, the key schedules of
// ciphers, the keys that HMAC makes of a password, and 16 bytes of text now and
// then in the library's OCB. Who has these and a copy of the file can read it: no
// copy should be kept after the import.
//
// Each format is one file that defines one Format; formats lists them.
package seeds
