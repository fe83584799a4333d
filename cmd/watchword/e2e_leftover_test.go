package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestNothingOfAnImportIsLeftWhenItsConnectionEnds looks for seeds right after
// 'watchword import' has gone, before another request could overwrite them: for
// files that fit in one buffer and ones that do not, in the clear and over TLS,
// taken, refused for a bad record, and turned away for a wrong key.
func TestNothingOfAnImportIsLeftWhenItsConnectionEnds(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			dir := t.TempDir()
			var env, args []string
			if scheme == "https" {
				certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
				newCertificate(t, certFile, keyFile)
				env = []string{"WATCHWORD_HTTP_TLS_CERT=" + certFile, "WATCHWORD_HTTP_TLS_KEY=" + keyFile}
				args = []string{"--ca-file", certFile}
			}
			n := newNode(t, nodeOptions{plain: true, env: env})
			n.start()
			binary := program(t, false)
			cli := func(key string, words ...string) error {
				words = append(append(words, "--url", scheme+"://"+n.http, "--api-key-file", key), args...)
				return exec.Command(binary, words...).Run()
			}
			// A client that closes its connection with each request.
			web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
			closing := func(key, file string) error {
				body, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				r, err := http.NewRequest(http.MethodPost, scheme+"://"+n.http+"/v1/imports", bytes.NewReader(body))
				if err != nil {
					return err
				}
				r.Header.Set("Authorization", "Bearer "+firstLine(t, key))
				r.Header.Set("Content-Type", "application/octet-stream")
				answer, err := web.Do(r)
				if err != nil {
					t.Fatalf("no answer: %v", err)
				}
				defer answer.Body.Close()
				if answer.StatusCode != http.StatusOK {
					return errors.New(answer.Status)
				}
				return nil
			}
			admin := filepath.Join(n.dir, adminKeyFile)
			eventually(t, time.Minute, "the server answers", func() bool { return cli(admin, "user", "list") == nil })
			n.secret = firstLine(t, filepath.Join(n.dir, secretFile))
			if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", n.pid())); err != nil || !bytes.Contains(env, []byte(withoutPreemption)) {
				t.Errorf("the server is not protected from signals that keep what its registers hold (%v)", err)
			}

			s := newScanner()
			s.add("known secret", []byte(n.secret))
			write := func(name string, count int, more string) string {
				list := newTokens(name, count, false)
				for _, k := range list {
					s.addSeed(k.serial, k.seed)
				}
				text, err := io.ReadAll(shipment(list))
				if err != nil {
					t.Fatal(err)
				}
				file := filepath.Join(dir, name+".csv")
				if err := os.WriteFile(file, append(text, more...), 0o600); err != nil {
					t.Fatal(err)
				}
				return file
			}
			stranger := filepath.Join(dir, "stranger.key")
			if err := os.WriteFile(stranger, []byte("ww_0123456789abcdef_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, size := range []int{20, 400} {
				for _, c := range []struct {
					name, more, key string
					good            bool
				}{{"TAKEN", "", admin, true}, {"REFUSED", "BAD,xyz\n", admin, false}, {"STRANGER", "", stranger, false}} {
					for way, send := range map[string]func(key, file string) error{
						"CLI": func(key, file string) error { return cli(key, "import", file) }, "CLOSING": closing,
					} {
						file := write(fmt.Sprintf("%s-%d-%s-", c.name, size, way), size, c.more)
						if err := send(c.key, file); (err == nil) != c.good {
							t.Fatalf("import of %s: %v", file, err)
						}
						found, scanned := s.memory(t, n.pid())
						if len(found["known secret"]) == 0 {
							t.Errorf("the scan of %d MB did not find the RADIUS secret, which is there: it proves nothing", scanned>>20)
						}
						delete(found, "known secret")
						if len(found) > 0 {
							t.Errorf("%s, %s, %d tokens: seeds are in the server's memory (%d MB scanned):\n%s", c.name, way, size, scanned>>20, describe(found))
						}
					}
				}
			}
		})
	}
}
