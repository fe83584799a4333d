package main

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/*.txt: the command line as people use it, against
// real servers. Beside testscript's own commands there are
//
//	serve            start a server on $WORK/var under the script's variables, and wait until it is ready
//	term, kill9      end it by SIGTERM, which must succeed, or by kill -9
//	exits N CMD ...  run a command that must end with exit code N
//	code VAR ARG ... put the last code that oathtool prints into a variable
//	silent FILE TEXT the file holds the text nowhere
//
// and those of script_fido_test.go.
func TestScripts(t *testing.T) {
	commands := map[string]func(*testscript.TestScript, bool, []string){
		"serve":  scriptServe,
		"term":   scriptTerm,
		"kill9":  scriptKill,
		"exits":  scriptExits,
		"code":   scriptCode,
		"silent": scriptSilent,
	}
	maps.Copy(commands, fidoCommands)
	binary := program(t, false) // servers have the race detector; a command a test would wait for is quicker without
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			bin := filepath.Join(e.WorkDir, "bin")
			if err := os.Mkdir(bin, 0o755); err != nil {
				return err
			}
			e.Values[scriptServer{}] = &scriptServer{t: e.T().(testing.TB)}
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("TZ", "UTC")
			// The secret of the RFC vectors (RFC 4226, appendix D).
			e.Setenv("SEED", "3132333435363738393031323334353637383930")
			return os.Symlink(binary, filepath.Join(bin, "watchword"))
		},
		Cmds: commands,
	})
}

// scriptServer is the server that a script started last.
type scriptServer struct {
	t testing.TB
	n *node
}

// serverVariables are those of the script that the server gets too.
func serverVariables(ts *testscript.TestScript) []string {
	var env []string
	for _, s := range settings(defaultConfig()) {
		if v := ts.Getenv(s.Env); v != "" {
			env = append(env, s.Env+"="+v)
		}
	}
	for _, name := range []string{"WATCHWORD_CONFIG", "SOFTHSM2_CONF"} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func scriptServe(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: serve")
	}
	s := ts.Value(scriptServer{}).(*scriptServer)
	n := startNode(s.t, nodeOptions{dir: ts.MkAbs("var"), env: serverVariables(ts)})
	s.n = n
	ts.Defer(func() { // before the folder is removed
		n.kill()
		if s.t.Failed() {
			ts.Logf("the end of the server's log:\n%s", lastLines(n.log(), 20))
		}
	})
	ts.Setenv("WATCHWORD_URL", "http://"+n.http)
	ts.Setenv("WATCHWORD_API_KEY_FILE", filepath.Join(n.dir, adminKeyFile))
	ts.Setenv("HTTP", n.http)
	ts.Setenv("RADIUS", n.radius)
	ts.Setenv("RADIUS_SECRET", n.secret)
	ts.Setenv("PID", strconv.Itoa(n.pid()))
	ts.Setenv("LOG", n.logFile())
}

func running(ts *testscript.TestScript) *node {
	n := ts.Value(scriptServer{}).(*scriptServer).n
	if n == nil {
		ts.Fatalf("no server was started")
	}
	return n
}

func scriptTerm(ts *testscript.TestScript, neg bool, args []string) {
	n := running(ts)
	n.term()
	if n.code != exitOK {
		ts.Fatalf("the server ended with exit code %d:\n%s", n.code, lastLines(n.log(), 20))
	}
}

func scriptKill(ts *testscript.TestScript, neg bool, args []string) { running(ts).kill() }

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N CMD ...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, and not %d", got, want)
	}
}

func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code VAR ARG ...")
	}
	if !strings.Contains(strings.Join(args, " "), "--hotp") {
		// A step's last moments are over before the code is typed.
		for time.Now().Unix()%30 > 25 {
			time.Sleep(100 * time.Millisecond)
		}
	}
	out, err := exec.Command("oathtool", args[1:]...).CombinedOutput()
	if err != nil {
		ts.Fatalf("oathtool: %v\n%s", err, out)
	}
	ts.Setenv(args[0], lastLines(string(out), 1))
}

func scriptSilent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 || args[1] == "" {
		ts.Fatalf("usage: silent FILE TEXT")
	}
	if strings.Contains(ts.ReadFile(args[0]), args[1]) {
		ts.Fatalf("%s holds what it must not", args[0])
	}
}
