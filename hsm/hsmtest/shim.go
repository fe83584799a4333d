package hsmtest

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/hsm/pkcs11"
)

//go:embed shim/shim.c
var shimSource []byte

// ShimControl makes the module of Shim fail. It works through a file, so the
// module may be loaded in another process.
type ShimControl struct {
	t    testing.TB
	path string

	mu       sync.Mutex
	lines    []string
	restarts int
	written  time.Time
}

// Shim builds a PKCS#11 module around SoftHSM that fails on command. SoftHSM
// itself, and another Shim, must not be in use in the same process meanwhile.
func Shim(t testing.TB) (module string, control *ShimControl) {
	t.Helper()
	real, err := pkcs11.FindSoftHSM()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "shim.c")
	if err := os.WriteFile(source, shimSource, 0o600); err != nil {
		t.Fatal(err)
	}
	c := &ShimControl{t: t, path: filepath.Join(dir, "control")}
	c.write()
	module = filepath.Join(dir, "shim.so")
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-O2", "-Wall", "-o", module,
		fmt.Sprintf("-DREAL_MODULE=%q", real), fmt.Sprintf("-DCONTROL_FILE=%q", c.path),
		source, "-ldl", "-lpthread").CombinedOutput(); err != nil {
		t.Fatalf("build the PKCS#11 shim: %v\n%s", err, out)
	}
	return module, c
}

// ShimToken makes an empty SoftHSM token behind a Shim. A server started as
// another process finds it by the same module, label and PIN, since it inherits
// SOFTHSM2_CONF from this one's environment.
func ShimToken(t testing.TB) (pkcs11.Config, *ShimControl) {
	t.Helper()
	module, control := Shim(t)
	return token(t, module), control
}

// Fail makes the functions, such as "C_Sign", return rv instead of doing
// anything; all functions but C_Initialize and C_Finalize if none is named.
func (c *ShimControl) Fail(rv uint, functions ...string) { c.FailEvery(1, rv, functions...) }

// FailEvery makes every nth call of each of the functions return rv.
func (c *ShimControl) FailEvery(n int, rv uint, functions ...string) {
	c.add(fmt.Sprintf("fail %#x %s %d", rv, list(functions), n))
}

// Delay makes each call of the functions take longer. Clear ends the calls
// that are waiting too.
func (c *ShimControl) Delay(d time.Duration, functions ...string) {
	c.add(fmt.Sprintf("delay %d %s", d.Milliseconds(), list(functions)))
}

// Restart makes the HSM forget all sessions and session objects, as if it had
// been switched off and on, and number everything from 1 again.
func (c *ShimControl) Restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restarts++
	c.write()
}

// Clear ends all failures and delays.
func (c *ShimControl) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = nil
	c.write()
}

// Log is what the module has noted: "login 0xRV" for each C_Login, and
// "violation ..." for each call that was made while it must not be.
func (c *ShimControl) Log() []string {
	b, err := os.ReadFile(c.path + ".log")
	if err != nil && !os.IsNotExist(err) {
		c.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// Violations are the lines of Log that accuse.
func (c *ShimControl) Violations() []string {
	var v []string
	for _, line := range c.Log() {
		if strings.HasPrefix(line, "violation") {
			v = append(v, line)
		}
	}
	return v
}

// Logins says how many times C_Login was called.
func (c *ShimControl) Logins() int {
	n := 0
	for _, line := range c.Log() {
		if strings.HasPrefix(line, "login") {
			n++
		}
	}
	return n
}

func (c *ShimControl) add(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, line)
	c.write()
}

// write replaces the control file as a whole, so that the module never reads
// half of it.
func (c *ShimControl) write() {
	text := fmt.Sprintf("restart %d\n%s\n", c.restarts, strings.Join(c.lines, "\n"))
	tmp := c.path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		c.t.Error(err)
		return
	}
	// The module knows a new file by its number and time, of which a file system
	// may give both a second time within one tick of the clock.
	if now := time.Now(); now.After(c.written) {
		c.written = now
	}
	c.written = c.written.Add(time.Microsecond)
	if err := os.Chtimes(tmp, c.written, c.written); err != nil {
		c.t.Error(err)
	}
	if err := os.Rename(tmp, c.path); err != nil {
		c.t.Error(err)
	}
}

func list(functions []string) string {
	if len(functions) == 0 {
		return "*"
	}
	return strings.Join(functions, ",")
}
