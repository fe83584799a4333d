package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	browserpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
)

// chromiumAAGUID is the model that Chromium's virtual authenticator says it is.
const chromiumAAGUID = "01020304-0506-0708-0102-030405060708"

// A chromium is a browser with a profile of its own. Its tabs have their own keys.
type chromium struct {
	t   *testing.T
	ctx context.Context
}

func newChromium(t *testing.T) *chromium {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v (package chromium)", err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, // which root cannot have
		chromedp.DisableGPU, chromedp.WindowSize(390, 844), chromedp.WSURLReadTimeout(time.Minute))
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, end := chromedp.NewContext(ctx)
	t.Cleanup(end)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return &chromium{t: t, ctx: ctx}
}

// A tab is a page with a virtual security key in its machine.
type tab struct {
	t   *testing.T
	ctx context.Context
	key webauthn.AuthenticatorID
}

// inPage is there in every page of a tab: what was against the
// Content-Security-Policy, and the browser's own way to speak to keys, so that
// what a test does with them owes nothing to the pages' script.
const inPage = `
window.violations = [];
addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective + " " + e.blockedURI));
window.get = async (o) => (await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(o.publicKey) })).toJSON();
window.create = async (o) => (await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(o.publicKey) })).toJSON();
`

// tab opens a tab whose key has room for passkeys, verifies its user and is always
// touched at once.
func (c *chromium) tab() *tab {
	c.t.Helper()
	ctx, stop := chromedp.NewContext(c.ctx)
	c.t.Cleanup(stop)
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	c.t.Cleanup(cancel)
	b := &tab{t: c.t, ctx: ctx}
	if _, err := chromedp.Call(ctx, browserpage.AddScriptToEvaluateOnNewDocument, browserpage.AddScriptToEvaluateOnNewDocumentParams{Source: inPage}); err != nil {
		c.t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, webauthn.Enable, webauthn.EnableParams{}); err != nil {
		c.t.Fatal(err)
	}
	added, err := chromedp.Call(ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Ctap2version: webauthn.Ctap2versionCtap21, Transport: webauthn.AuthenticatorTransportUsb,
		HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	b.key = added.AuthenticatorID
	return b
}

func (b *tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v; the page says:\n%s", what, err, b.text())
	}
}

func (b *tab) open(address string) {
	b.t.Helper()
	b.do("open "+address, chromedp.Navigate(address))
}

// text is what a person can read on the page.
func (b *tab) text() string { return inTab[string](b, `document.body.innerText`) }

// inTab evaluates an expression in the page, and waits if it is a promise.
func inTab[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%.80s: %v", expression, err)
	}
	return v
}

// until waits until an expression is true in the page.
func (b *tab) until(expression string) {
	b.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		// While a page is left its script's world may be gone for a moment.
		if is, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](expression)); err == nil && is {
			return
		} else if time.Now().After(deadline) {
			b.t.Fatalf("%s did not come true (%v); the page says:\n%s", expression, err, b.text())
		}
	}
}

// wantNoViolation fails the test if the page did what its policy forbids.
func (b *tab) wantNoViolation() {
	b.t.Helper()
	if got := inTab[[]string](b, `violations`); len(got) > 0 {
		b.t.Errorf("against the Content-Security-Policy: %v", got)
	}
}

// answer has the tab's key answer the options of a login or a registration, in the
// page that is open.
func (b *tab) answer(how string, options json.RawMessage) json.RawMessage {
	b.t.Helper()
	return json.RawMessage(inTab[string](b, how+`(`+string(options)+`).then(JSON.stringify)`))
}

// ask has the page that is open ask the server, as its script does.
func (b *tab) ask(path string, body any) (out map[string]json.RawMessage) {
	b.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	got := inTab[string](b, fmt.Sprintf(`fetch(%q, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(%s)}).then(r => r.text())`, path, text))
	if err := json.Unmarshal([]byte(got), &out); err != nil {
		b.t.Fatalf("%s answers %s", path, got)
	}
	return out
}

// startFIDO starts a server that is the relying party localhost, and answers the
// origin of its pages.
func startFIDO(t *testing.T, more string) (n *node, origin string) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "watchword.yaml")
	n = newNode(t, nodeOptions{dir: filepath.Join(dir, "var"), env: []string{"WATCHWORD_CONFIG=" + config}})
	_, port, err := net.SplitHostPort(n.http)
	if err != nil {
		t.Fatal(err)
	}
	origin = "http://localhost:" + port
	text := fmt.Sprintf("fido:\n  parties:\n    - {id: localhost, name: Corner Shop, origins: [%q]}\n%s", origin, more)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start()
	n.waitReady()
	return n, origin
}

// invite answers the address where a new user enrols.
func (n *node) invite(user, origin string) string {
	n.t.Helper()
	var made struct{ Code, Path, URL string }
	n.must(http.MethodPost, "/v1/users/"+user+"/invitations", map[string]any{}, &made)
	if made.URL != origin+made.Path || !strings.HasSuffix(made.Path, made.Code) {
		n.t.Errorf("an invitation to %s at %s", made.URL, origin)
	}
	return made.URL
}

// trustChromium has the server trust Chromium's virtual keys by a root of its own,
// as they are in no metadata. Chromium makes an attestation certificate anew for
// each credential, always with the same name and key, and signs it with that key
// itself; so the root is an authority with that name and key.
func trustChromium(t *testing.T, b *tab, n *node) {
	t.Helper()
	var begun struct{ Options json.RawMessage }
	n.must(http.MethodPost, "/v1/webauthn/register/begin", map[string]any{"user": "alice"}, &begun)
	var made struct {
		Response struct {
			AttestationObject string `json:"attestationObject"`
		}
	}
	if err := json.Unmarshal(b.answer("create", begun.Options), &made); err != nil {
		t.Fatal(err)
	}
	object, err := base64.RawURLEncoding.DecodeString(made.Response.AttestationObject)
	if err != nil {
		t.Fatal(err)
	}
	// The statement's x5c is an array of one byte string with a length of two bytes.
	_, rest, found := bytes.Cut(object, []byte("cx5c\x81\x59"))
	if !found || len(rest) < 2 || len(rest) < 2+int(rest[0])<<8+int(rest[1]) {
		t.Fatalf("chromium attests with no certificate: %x", object)
	}
	batch, err := x509.ParseCertificate(rest[2 : 2+int(rest[0])<<8+int(rest[1])])
	if err != nil {
		t.Fatal(err)
	}
	anybody, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // nobody looks at a root's own signature
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), RawSubject: batch.RawSubject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		DNSNames: []string{"root.invalid"}, // or crypto/x509 takes it for the leaf itself
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, batch.PublicKey, anybody)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	n.must(http.MethodPut, "/v1/fido/roots", map[string]string{"pem": string(text)}, nil)
	if _, err := chromedp.Call(b.ctx, webauthn.ClearCredentials, webauthn.ClearCredentialsParams{AuthenticatorID: b.key}); err != nil {
		t.Fatal(err)
	}
}

// enrol enrols the tab's key by an invitation's page, and answers its serial.
func (b *tab) enrol(n *node, user, origin string) string {
	b.t.Helper()
	b.open(n.invite(user, origin))
	if text := b.text(); !strings.Contains(text, user) || !strings.Contains(text, "Corner Shop") {
		b.t.Errorf("the invitation of %s says:\n%s", user, text)
	}
	b.do("press the button", chromedp.Click(chromedp.CSS("#enrol button")))
	b.until(`location.pathname === "/enrol/done" && document.readyState === "complete"`)
	b.wantNoViolation()
	var list struct {
		Items []struct{ Serial, Type, State, Attestation, Format, AAGUID string }
	}
	n.must(http.MethodGet, "/v1/tokens?user="+user, nil, &list)
	if len(list.Items) != 1 {
		b.t.Fatalf("%s holds %+v", user, list.Items)
	}
	t := list.Items[0]
	if t.Type != "fido" || t.State != "active" || t.Attestation != "basic" || t.Format != "packed" || t.AAGUID != chromiumAAGUID {
		b.t.Errorf("%s holds %+v", user, t)
	}
	if text := b.text(); !strings.Contains(text, "Your key is enrolled") || !strings.Contains(text, t.Serial) {
		b.t.Errorf("at the end the page says:\n%s", text)
	}
	return t.Serial
}

// signIn signs in by the page, by keyboard alone, and answers what it then shows.
func (b *tab) signIn(origin, user string) string {
	b.t.Helper()
	b.beginToSignIn(origin, user)
	b.until(`document.activeElement.id === "outcome" || document.activeElement.id === "problem"`)
	b.wantNoViolation()
	return inTab[string](b, `document.activeElement.innerText`)
}

func (b *tab) beginToSignIn(origin, user string) {
	b.t.Helper()
	b.open(origin + "/signin")
	b.do("go to the user name", chromedp.Focus(chromedp.CSS("#user")))
	b.do("type the user name", chromedp.KeyEvent(user+"\r"))
}

func TestInChromiumAKeyIsEnrolledByInvitationAndSignsIn(t *testing.T) {
	n, origin := startFIDO(t, "")
	n.must(http.MethodPost, "/v1/users", map[string]string{"name": "alice"}, nil)
	b := newChromium(t).tab()

	// Nobody vouches for the model yet: the page says so, and the invitation is not used up.
	invitation := n.invite("alice", origin)
	b.open(invitation)
	b.do("press the button", chromedp.Click(chromedp.CSS("#enrol button")))
	b.until(`document.activeElement.id === "problem"`)
	if text := b.text(); !strings.Contains(text, "That was refused") {
		t.Errorf("a model that nobody vouches for:\n%s", text)
	}
	b.wantNoViolation()
	trustChromium(t, b, n)
	b.do("press the button again", chromedp.Click(chromedp.CSS("#enrol button")))
	b.until(`location.pathname === "/enrol/done" && document.readyState === "complete"`)
	b.open(invitation)
	if text := b.text(); !strings.Contains(text, "This invitation cannot be used") {
		t.Errorf("a used invitation says:\n%s", text)
	}

	n.must(http.MethodPost, "/v1/users", map[string]string{"name": "bob"}, nil)
	serial := b.enrol(n, "bob", origin)
	for _, user := range []string{"bob", "BOB "} {
		shown := b.signIn(origin, user)
		for _, part := range []string{"Accepted", "bob", serial, chromiumAAGUID, "its maker's certificate", "yes, by PIN, fingerprint or face", "on one device only"} {
			if !strings.Contains(shown, part) {
				t.Errorf("%s signs in, and %q is not shown:\n%s", user, part, shown)
			}
		}
	}
	// A passkey says itself whose it is. (Which of the two the browser takes is up to it.)
	if shown := b.signIn(origin, ""); !strings.Contains(shown, "Accepted") {
		t.Errorf("a passkey:\n%s", shown)
	}
	if last := n.lastAttempt("bob"); last.Outcome != "accept" || last.Serial != serial || last.field("transport") != "console" {
		t.Errorf("in the audit: %+v", last)
	}

	n.must(http.MethodPost, "/v1/tokens/"+serial+"/lost", map[string]string{"reason": "left in a train"}, nil)
	// Bob has no key any more, and looks like anybody who has none: the browser gets
	// credentials that were made up. It says that there is no such key; or, where they
	// look like a telephone's, waits for one.
	b.beginToSignIn(origin, "bob")
	asks := `document.body.innerText.includes("Follow what your browser says")`
	b.until(asks + ` || document.activeElement.id === "problem"`)
	time.Sleep(2 * time.Second)
	if shown := b.text(); strings.Contains(shown, "Accepted") {
		t.Errorf("a lost key:\n%s", shown)
	}
	if !inTab[bool](b, asks+` || document.activeElement.id === "problem"`) {
		t.Errorf("with a lost key the page says:\n%s", b.text())
	}
	n.wantIntactAudit()
}

// keyLogin is a login with a key that an application began.
type keyLogin struct {
	Options json.RawMessage
	Session string
}

func (n *node) beginLogin(user string) (l keyLogin) {
	n.t.Helper()
	in := map[string]string{}
	if user != "" {
		in["user"] = user
	}
	n.must(http.MethodPost, "/v1/webauthn/login/begin", in, &l)
	return l
}

// finishLogin answers a login's result.
func (n *node) finishLogin(session string, response json.RawMessage) string {
	n.t.Helper()
	var got struct{ Result string }
	n.must(http.MethodPost, "/v1/webauthn/login/finish", map[string]any{"session": session, "response": response}, &got)
	return got.Result
}

func TestInChromiumWhatIsNotTheAnswerToThisLoginIsRefused(t *testing.T) {
	n, origin := startFIDO(t, "")
	browser := newChromium(t)
	alices, bobs := browser.tab(), browser.tab()
	n.must(http.MethodPost, "/v1/users", map[string]string{"name": "alice"}, nil)
	n.must(http.MethodPost, "/v1/users", map[string]string{"name": "bob"}, nil)
	alices.open(origin + "/signin")
	trustChromium(t, alices, n)
	serial := alices.enrol(n, "alice", origin)
	bobs.enrol(n, "bob", origin)
	alices.open(origin + "/signin")
	bobs.open(origin + "/signin")
	// refused fails the test unless a login is rejected, and the audit says why.
	refused := func(what, result, user, reason string) {
		t.Helper()
		if result != "reject" {
			t.Errorf("%s: %s", what, result)
		}
		if last := n.lastAttempt(user); last.Outcome != "reject" || last.Reason != reason {
			t.Errorf("%s: the audit has %+v, want %s", what, last, reason)
		}
	}

	l := n.beginLogin("alice")
	response := alices.answer("get", l.Options)
	stale := n.beginLogin("alice")
	refused("the answer to another challenge", n.finishLogin(stale.Session, response), "alice", "bad_signature")
	if got := n.finishLogin(l.Session, response); got != "accept" {
		t.Fatalf("the answer: %s", got)
	}
	refused("the same answer again", n.finishLogin(l.Session, response), "alice", "replay")

	bobLogin := n.beginLogin("bob")
	bobResponse := bobs.answer("get", bobLogin.Options)
	l = n.beginLogin("alice")
	refused("bob's answer to his challenge, for alice", n.finishLogin(l.Session, bobResponse), "alice", "unknown_credential")
	refused("alice's answer, for bob", n.finishLogin(bobLogin.Session, alices.answer("get", l.Options)), "bob", "unknown_credential")
	// Bob's key, made to answer alice's challenge.
	var swapped struct {
		PublicKey map[string]any `json:"publicKey"`
	}
	if err := json.Unmarshal(l.Options, &swapped); err != nil {
		t.Fatal(err)
	}
	swapped.PublicKey["allowCredentials"] = []any{}
	options, err := json.Marshal(swapped)
	if err != nil {
		t.Fatal(err)
	}
	refused("bob's answer to alice's challenge", n.finishLogin(l.Session, bobs.answer("get", options)), "alice", "unknown_credential")

	// Another page on this machine may use the same relying party id, but is not ours.
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>imitation</title>")
	}))
	defer elsewhere.Close()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(elsewhere.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	alices.open("http://localhost:" + port)
	l = n.beginLogin("alice")
	refused("from another origin", n.finishLogin(l.Session, alices.answer("get", l.Options)), "alice", "wrong_origin")
	// Nor may it ask what our own pages ask.
	ask := fmt.Sprintf(`fetch(%q, {method: "POST", mode: "no-cors", body: "{}"}).then(() => "answered", () => "refused")`, origin+"/console/signin/begin")
	if got := inTab[string](alices, ask); got != "refused" {
		t.Errorf("another page that asks is %s", got)
	}

	// A copy of the key that is behind the original.
	alices.open(origin + "/signin")
	if shown := alices.signIn(origin, "alice"); !strings.Contains(shown, "Accepted") {
		t.Fatalf("alice signs in:\n%s", shown)
	}
	alices.cloneKey(1)
	if shown := alices.signIn(origin, "alice"); !strings.Contains(shown, "Rejected") || strings.Contains(shown, "clone") {
		t.Errorf("a cloned key:\n%s", shown)
	}
	refused("a cloned key", "reject", "alice", "cloned")
	var token struct{ State string }
	n.must(http.MethodGet, "/v1/tokens/"+serial, nil, &token)
	if token.State != "suspended" {
		t.Errorf("the cloned key is %s", token.State)
	}
	alices.cloneKey(1000)
	if shown := alices.signIn(origin, ""); !strings.Contains(shown, "Rejected") {
		t.Errorf("a suspended key:\n%s", shown)
	}
	n.wantIntactAudit()
}

// cloneKey makes the tab's key one that has the same credentials, and another
// count of signatures.
func (b *tab) cloneKey(count float64) {
	b.t.Helper()
	held, err := chromedp.Call(b.ctx, webauthn.GetCredentials, webauthn.GetCredentialsParams{AuthenticatorID: b.key})
	if err != nil || len(held.Credentials) == 0 {
		b.t.Fatalf("the key holds %d credentials: %v", len(held.Credentials), err)
	}
	if _, err := chromedp.Call(b.ctx, webauthn.ClearCredentials, webauthn.ClearCredentialsParams{AuthenticatorID: b.key}); err != nil {
		b.t.Fatal(err)
	}
	for _, c := range held.Credentials {
		// Written out, as the generated type says more than this key understands.
		params := map[string]any{"authenticatorId": b.key, "credential": map[string]any{
			"credentialId": c.CredentialID, "isResidentCredential": c.IsResidentCredential, "rpId": c.RpID,
			"privateKey": c.PrivateKey, "userHandle": c.UserHandle, "signCount": count,
		}}
		if _, err := chromedp.Call(b.ctx, cdp.Command[map[string]any, cdp.Empty]{Method: webauthn.CommandAddCredential}, params); err != nil {
			b.t.Fatal(err)
		}
	}
}

func TestInChromiumAnAnswerThatComesTooLateIsRefused(t *testing.T) {
	n, origin := startFIDO(t, "  ceremony_ttl: 10s\n")
	b := newChromium(t).tab()
	n.must(http.MethodPost, "/v1/users", map[string]string{"name": "alice"}, nil)
	b.open(origin + "/signin")
	trustChromium(t, b, n)
	b.enrol(n, "alice", origin)
	b.open(origin + "/signin")
	begun := b.ask("/console/signin/begin", map[string]string{"user": "alice"})
	response := b.answer("get", begun["options"])
	time.Sleep(11 * time.Second)
	got := b.ask("/console/signin/finish", map[string]json.RawMessage{"session": begun["session"], "response": response})
	if string(got["result"]) != `"reject"` {
		t.Errorf("%s", got)
	}
	if last := n.lastAttempt("alice"); last.Reason != "expired" {
		t.Errorf("in the audit: %+v", last)
	}
}

func TestInChromiumASoftwareTokenIsEnrolledByTwoCodes(t *testing.T) {
	n, origin := startFIDO(t, "")
	n.must(http.MethodPost, "/v1/users", map[string]string{"name": "alice"}, nil)
	b := newChromium(t).tab()
	b.open(n.invite("alice", origin))
	b.do("set up an app", chromedp.Click(chromedp.CSS(`form[action$="/app"] button`)))
	b.until(`document.querySelector("img.qr")?.complete && document.querySelector("img.qr").naturalWidth > 0`)
	b.wantNoViolation()
	key := strings.ReplaceAll(inTab[string](b, `document.querySelector("code.key").textContent`), " ", "")
	seed, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(key)
	if err != nil || len(seed) != 20 {
		t.Fatalf("a key of %d bytes: %v", len(seed), err)
	}

	// The QR code, as a phone's camera sees it, says what the link and the key say.
	picture, err := chromedp.Run(b.ctx, chromedp.Screenshot(chromedp.CSS("img.qr")))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "qr.png")
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		t.Fatal(err)
	}
	seen, err := exec.Command("zbarimg", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", file).Output()
	if err != nil {
		t.Fatalf("zbarimg (package zbar-tools): %v", err)
	}
	link := inTab[string](b, `document.querySelector('a[href^="otpauth:"]').href`)
	if strings.TrimSpace(string(seen)) != link {
		t.Error("the QR code and the link say different things")
	}
	u, err := url.Parse(link)
	if err != nil || u.Query().Get("secret") != key || u.Query().Get("issuer") != "Corner Shop" || u.Path != "/Corner Shop:alice" {
		t.Errorf("the link is not that of the key, for this user: %v", err)
	}

	code := func(at time.Time) string {
		out, err := exec.Command("oathtool", "--totp", "-b", "--now", at.UTC().Format("2006-01-02 15:04:05 UTC"), key).Output()
		if err != nil {
			t.Fatalf("oathtool: %v", err)
		}
		return strings.TrimSpace(string(out))
	}
	wrong := "000000"
	if strings.Contains(code(time.Now().Add(-30*time.Second))+code(time.Now())+code(time.Now().Add(30*time.Second)), wrong) {
		wrong = "111111"
	}
	b.do("type a wrong code", chromedp.SendKeys(chromedp.CSS("#first"), wrong), chromedp.SendKeys(chromedp.CSS("#second"), wrong+"\r"))
	b.until(`document.querySelector(".problem") !== null`)
	if inTab[bool](b, `document.querySelector("code.key") !== null`) {
		t.Error("the key is shown a second time")
	}
	now := time.Now()
	first, second := code(now.Add(-30*time.Second)), code(now)
	b.do("type two codes", chromedp.SendKeys(chromedp.CSS("#first"), first[:3]+" "+first[3:]), chromedp.SendKeys(chromedp.CSS("#second"), second+"\r"))
	b.until(`location.pathname === "/enrol/done" && document.readyState === "complete"`)
	b.wantNoViolation()
	for _, shown := range []string{first, second} {
		if got := n.verify("alice", shown); got != sawReject {
			t.Errorf("a code that was shown, again: %s", got)
		}
	}
	if got := n.verify("alice", code(now.Add(30*time.Second))); got != sawAccept {
		t.Errorf("the next code: %s", got)
	}
	// Once it was shown, the server has forgotten it.
	grouped := inGroups(key)
	s := newScanner()
	s.addSeed("the seed", seed)
	s.add("the key as it is typed", []byte(grouped))
	s.add("the shop", []byte("Corner Shop")) // is in its memory
	found, scanned := s.memory(t, n.pid())
	if len(found["the shop"]) == 0 {
		t.Errorf("the scan of %d MB of memory did not find what is there: it proves nothing", scanned>>20)
	}
	delete(found, "the shop")
	if len(found) > 0 {
		t.Errorf("the seed is in the server's memory (%d MB scanned):\n%s", scanned>>20, describe(found))
	}
	if found := s.files(t, n.dir); len(found["the seed raw"])+len(found["the seed base32"])+len(found["the key as it is typed"]) > 0 {
		t.Errorf("the seed is on disk:\n%s", describe(found))
	}
	if strings.Contains(n.log(), key) || strings.Contains(n.log(), grouped) {
		t.Error("the key is in the log")
	}
}

// inGroups writes a key as the page shows it.
func inGroups(key string) string {
	var b strings.Builder
	for i, c := range key {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(c)
	}
	return b.String()
}
