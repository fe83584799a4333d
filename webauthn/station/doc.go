// Package station is the enrolment station for FIDO keys: an administrator plugs in
// keys one after another, and each is identified, judged by its model, given a PIN,
// attested, enrolled for a user or as stock, and labelled. It speaks to keys through
// libfido2, and to Watchword through its API, with a key of scope station.
//
//	Watcher -> Key -> Device (libfido2)   what is plugged in, and what it does
//	Server                                begin, verdict, finish
//	Station                               the order of things, for one batch
//	Journal, Labels                       what is durable of it
//
// # PINs
//
// A PIN lies in a page of its own (Secret), which no collector moves, which is not
// swapped out, and which is wiped. It is drawn there, read there, handed to libfido2
// from there, and written to the label file from there. libfido2 wipes the copies that
// it makes itself. That is why the calls are made here, and not by way of
// go-libfido2: its functions take a PIN as a Go string, which nobody can wipe, and make
// a C copy of it which is freed as it is, or not at all; and of what is needed here it
// lacks the statement as the key made it, the whole chain of certificates, and all of
// authenticatorConfig. What libfido2 1.12 lacks itself, asking for enterprise
// attestation, is done to the reports (hid.c).
//
// # What is durable, and when
//
// A credential that was made is on the key only, until the server's answer to finish.
// Before the server is asked, what it will be asked goes to the journal, and a random
// PIN to a file of its own beside the labels. After its answer come the line of the
// label, the end of that file, and the journal's word that it is done. Whoever goes on
// with a journal asks the server once more what became of an open registration, which
// the server answers the same way however often it is asked. So after any interruption
// a key is either enrolled and labelled, or is not enrolled, and was set aside.
//
// A key that the server refuses, or that fails, is put in order: the credential is
// deleted from it, and a key that got a random PIN here is reset, as nobody will know
// that PIN. Where that is not possible, because the key was pulled out, or allows a
// reset only within seconds of being plugged in, it is said what stays on it.
package station
