package main

import (
	"os"
	"strings"
	"syscall"
)

// withoutPreemption is the setting of Go's runtime by which it sends its own
// threads no signals.
const withoutPreemption = "asyncpreemptoff=1"

// stopPreemption sees to it that the server runs without asynchronous
// preemption; it starts the same program anew, in the same process, with the
// setting in its environment, as the runtime reads it at start alone.
//
// By default the runtime interrupts goroutines that run for long with SIGURG.
// The kernel then writes the thread's registers, vectors included, to its signal
// stack, where they stay until the next signal; and while an upload is decrypted
// or copied, vector registers hold up to 256 bytes of it: whole seeds.
// (TestNothingOfAnImportIsLeftWhenItsConnectionEnds found them, one run in six.)
// Goroutines still give way at every function call.
func stopPreemption() error {
	settings := os.Getenv("GODEBUG")
	for s := range strings.SplitSeq(settings, ",") {
		if s == withoutPreemption {
			return nil
		}
	}
	if settings != "" {
		settings += ","
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	// The last of two variables of one name counts for some, the first for others.
	env := make([]string, 0, len(os.Environ())+1)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GODEBUG=") {
			env = append(env, v)
		}
	}
	return syscall.Exec(program, os.Args, append(env, "GODEBUG="+settings+withoutPreemption))
}
