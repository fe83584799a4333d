package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

// heapGrowth is by how many percent the heap grows before garbage is collected.
// What is remembered of people and replies is all looked through each time, and what
// a login leaves behind is a few kilobytes: at Go's 100 a server under load spends
// three times as much on it.
const heapGrowth = 300

// tune sets Go's runtime up for a server, but for what GOGC, GOMEMLIMIT and
// GOMAXPROCS say.
func tune(c *Config) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
		// A small machine has no room for that: from here on it is collected earlier.
		if most := memory(); os.Getenv("GOMEMLIMIT") == "" && most > 0 {
			debug.SetMemoryLimit(most / 4)
		}
	}
	if os.Getenv("GOMAXPROCS") == "" && c.sqlite() {
		// While a batch is written to the disk its thread holds a processor of Go's
		// that nobody else gets, and none of the machine's: so there is one more.
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	}
}

// memory is how many bytes the machine has, or this process's group of processes may
// take; zero: nobody knows.
func memory() int64 {
	most := int64(math.MaxInt64)
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err == nil {
		most = int64(info.Totalram) * int64(info.Unit)
	}
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
			most = min(most, n)
		}
	}
	if most == math.MaxInt64 {
		return 0
	}
	return most
}
