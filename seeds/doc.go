// Package seeds imports what token makers ship: it tells a seed file's format
// from its content, reads it record by record and hands the tokens to the core,
// which wraps each seed in the HSM and stores it.
//
//	file -> Detect -> Reader.Next ... Next -> chunks -> core: wrap, stage -> publish or discard
//	              \-> SHA-256 of the file
//
// A file is never held in memory as a whole and never written to disk. A seed
// is in the clear in three places, each wiped when its turn is over: the
// reader's input buffer, its one Record, and the chunk on its way to the core.
// No error, report or log holds a seed.
//
// Each format is one file that defines one Format; formats lists them.
package seeds
