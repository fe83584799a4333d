package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"watchword/tokens"
)

//go:embed templates/*.html
var templates embed.FS

//go:embed assets/*
var assets embed.FS

// parsePages reads each page with the frame that all have.
func parsePages() (map[string]*template.Template, error) {
	pages := map[string]*template.Template{}
	files, err := fs.Glob(templates, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(path.Base(file), ".html")
		if name == "frame" {
			continue
		}
		t, err := template.New("frame.html").Funcs(template.FuncMap{"day": day, "machine": machine}).ParseFS(templates, "templates/frame.html", file)
		if err != nil {
			return nil, fmt.Errorf("console: page %s: %w", name, err)
		}
		pages[name] = t
	}
	return pages, nil
}

// day is a time for people, machine for browsers, which show it as the person is
// used to.
func day(t time.Time) string     { return t.UTC().Format("2 January 2006, 15:04 UTC") }
func machine(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// view is what every page is made of.
type view struct {
	Name string // of the installation
	Body any
}

// sorry is a page that says why there is no other.
type sorry struct {
	Title, Text string
}

var (
	nothing = sorry{"There is nothing here", "The address is not complete, or was mistyped."}
	// used is the same whatever is wrong with an invitation.
	used = sorry{
		"This invitation cannot be used",
		"It may have been used before, it may have expired, or its address is not complete. Nothing was changed. Ask whoever invited you for a new one.",
	}
	busy    = sorry{"That cannot be done now", "Something that is needed does not answer. Nothing is lost: wait a minute, then load this page again."}
	hurried = sorry{"That was too much at once", "There were too many requests from your network. Wait a minute, then load this page again."}
	foreign = sorry{"This came from another page", "What was sent did not come from a page of this server. Open your invitation again, and begin there."}
	failed  = sorry{"That did not work", "The server made a mistake, and has noted it. Load this page again; if that does not help, tell whoever invited you."}
)

// render makes a page.
func (c *Console) render(name string, body any) ([]byte, error) {
	var b bytes.Buffer
	if err := c.pages[name].Execute(&b, view{Name: c.cfg.Name, Body: body}); err != nil {
		return nil, fmt.Errorf("make the page %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// show answers a page.
func (c *Console) show(w http.ResponseWriter, status int, name string, body any) {
	page, err := c.render(name, body)
	if err != nil {
		c.cfg.Log.Error("a page could not be made", "error", err)
		http.Error(w, failed.Text, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(page) // who is gone reads nothing
}

// page makes a handler of one that answers a page or an error.
func (c *Console) page(do func(w http.ResponseWriter, r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !c.limit.take(c.cfg.Source(r), time.Now()) {
			w.Header().Set("Retry-After", "30")
			c.show(w, http.StatusTooManyRequests, "sorry", hurried)
			return
		}
		if r.Method == http.MethodPost && !fromForm(r) {
			c.show(w, http.StatusForbidden, "sorry", foreign)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := do(w, r); err != nil {
			status, why := c.explain(r, err)
			if status == http.StatusServiceUnavailable {
				w.Header().Set("Retry-After", "5")
			}
			c.show(w, status, "sorry", why)
		}
	}
}

// explain is what a person is told of an error. What is not the person's own
// business goes to the log alone.
func (c *Console) explain(r *http.Request, err error) (int, sorry) {
	switch {
	case errors.Is(err, tokens.ErrUnknownKey):
		return http.StatusNotFound, used
	case errors.Is(err, tokens.ErrInvalid):
		text := sentence(err, tokens.ErrInvalid)
		if strings.HasPrefix(r.URL.Path, "/console/enrol/") { // the key, for what it is
			text += " Try another key, or show this to whoever invited you."
		}
		return http.StatusUnprocessableEntity, sorry{"That was refused", text}
	case errors.Is(err, tokens.ErrExists):
		return http.StatusConflict, sorry{"That was refused", "This key is enrolled already."}
	case errors.Is(err, tokens.ErrState):
		return http.StatusConflict, sorry{"That is not possible", sentence(err, tokens.ErrState)}
	case errors.Is(err, tokens.ErrForbidden):
		return http.StatusForbidden, sorry{"That is not allowed", "The invitation is to another kind of token."}
	case errors.Is(err, tokens.ErrNotFound):
		return http.StatusNotFound, used // the user was removed meanwhile
	case r.Context().Err() != nil:
		return http.StatusServiceUnavailable, busy
	}
	c.cfg.Log.Error("a page's request failed", "path", r.Pattern, "error", err)
	if errors.Is(err, tokens.ErrUnavailable) || errors.Is(err, tokens.ErrOverloaded) {
		return http.StatusServiceUnavailable, busy
	}
	return http.StatusInternalServerError, failed
}

// sentence is what an error says beyond its kind, written as a sentence.
func sentence(err, kind error) string {
	text := strings.Replace(err.Error(), kind.Error()+": ", "", 1)
	if text == "" {
		return ""
	}
	text = strings.ToUpper(text[:1]) + text[1:]
	if !strings.HasSuffix(text, ".") {
		text += "."
	}
	return text
}

// fromForm says whether a form was sent by a page of ours. There are no cookies, so
// nobody gains anything by sending one from elsewhere; browsers that say where a
// form is from are believed all the same. (A form of a page that tells nobody its
// address has the origin "null".)
func fromForm(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	origin := r.Header.Get("Origin")
	return (site == "" || site == "same-origin") && (origin == "" || origin == "null" || ownOrigin(r, origin))
}

// fromScript says whether a page of ours asked: its browser says so, in one way or
// another.
func fromScript(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	origin := r.Header.Get("Origin")
	switch {
	case site != "" && site != "same-origin":
		return false
	case origin == "":
		return site == "same-origin"
	}
	return ownOrigin(r, origin)
}

// ownOrigin says whether an origin is the address that a request was sent to. What
// ends TLS before us may have changed the scheme, so that is not compared.
func ownOrigin(r *http.Request, origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// asset is a file that pages load.
type asset struct {
	kind    string // Content-Type
	tag     string // ETag
	content []byte
}

func readAssets() (map[string]asset, error) {
	all := map[string]asset{}
	files, err := fs.ReadDir(assets, "assets")
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	for _, f := range files {
		content, err := assets.ReadFile("assets/" + f.Name())
		if err != nil {
			return nil, fmt.Errorf("console: %w", err)
		}
		sum := sha256.Sum256(content)
		kind := mime.TypeByExtension(path.Ext(f.Name()))
		if path.Ext(f.Name()) == ".js" {
			kind = "text/javascript; charset=utf-8"
		}
		all[f.Name()] = asset{kind: kind, tag: `"` + hex.EncodeToString(sum[:8]) + `"`, content: content}
	}
	return all, nil
}

// asset answers a style sheet or a script. Browsers ask each time whether it is
// still the same.
func (c *Console) asset(w http.ResponseWriter, r *http.Request) {
	a, ok := c.assets[r.PathValue("name")]
	if !ok {
		c.show(w, http.StatusNotFound, "sorry", nothing)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", a.tag)
	if r.Header.Get("If-None-Match") == a.tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", a.kind)
	_, _ = w.Write(a.content)
}
