package tokens

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// The bounds of what is noted on a token.
const (
	maxNote = 1000 // bytes
	maxTags = 32   // a token
	maxTag  = 32   // characters
)

// NoteEdit changes what is noted on a token.
type NoteEdit struct {
	Note *string  // text of up to 1000 bytes, in lines; nil: leave it
	Add  []string // tags of up to 32 characters a-z, 0-9, dot, hyphen and underscore; capitals are made small
	Drop []string // a tag that it has not does no harm
}

// valid brings an edit into the form that is stored, or says what is wrong with it.
func (e NoteEdit) valid() (NoteEdit, error) {
	if e.Note != nil {
		text := strings.TrimSpace(strings.ReplaceAll(*e.Note, "\r\n", "\n"))
		switch {
		case len(text) > maxNote:
			return e, fmt.Errorf("%w: the note is longer than %d bytes", ErrInvalid, maxNote)
		case !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && unicode.IsControl(r) }):
			return e, fmt.Errorf("%w: the note is not valid UTF-8, or holds a control character", ErrInvalid)
		}
		e.Note = &text
	}
	var err error
	if e.Add, err = foldTags(e.Add); err != nil {
		return e, err
	}
	if e.Drop, err = foldTags(e.Drop); err != nil {
		return e, err
	}
	for _, tag := range e.Add {
		if slices.Contains(e.Drop, tag) {
			return e, fmt.Errorf("%w: the tag %s is to be added and dropped", ErrInvalid, tag)
		}
	}
	if e.Note == nil && len(e.Add)+len(e.Drop) == 0 {
		return e, fmt.Errorf("%w: there is nothing to note: neither a note nor a tag", ErrInvalid)
	}
	return e, nil
}

// foldTags are tags in small letters, sorted, each once.
func foldTags(tags []string) ([]string, error) {
	if len(tags) > 2*maxTags {
		return nil, fmt.Errorf("%w: %d tags at once; a token can have %d", ErrInvalid, len(tags), maxTags)
	}
	list := make([]string, 0, len(tags))
	for _, tag := range tags {
		folded := strings.ToLower(tag)
		if folded == "" || len(folded) > maxTag || strings.ContainsFunc(folded, func(r rune) bool { return !strings.ContainsRune(tagChars, r) }) {
			return nil, fmt.Errorf("%w: %q is no tag: 1 to %d of a-z, 0-9, dot, hyphen and underscore are possible", ErrInvalid, clip(tag, 64), maxTag)
		}
		list = append(list, folded)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

const tagChars = "abcdefghijklmnopqrstuvwxyz0123456789._-"

// clip is a text's beginning.
func clip(text string, n int) string {
	if len(text) > n {
		text = strings.ToValidUTF8(text[:n], "") + "..."
	}
	return text
}

// Annotate changes the note and the tags of a token, a revoked one too. Nothing is
// decided by them, and they stay when the token changes hands. Of two who write a
// note at once the later one's stays; of tags that two add or drop, all.
func (s *Service) Annotate(ctx context.Context, p Principal, realm, serial string, e NoteEdit) (Token, error) {
	realm, err := p.token(realm, serial)
	if err != nil {
		return Token{}, err
	}
	if e, err = e.valid(); err != nil {
		return Token{}, err
	}
	d, err := s.perform(ctx, p, s.annotating(realm, serial, e))
	return d.token, err
}

// annotating is the act of Annotate.
func (s *Service) annotating(realm, serial string, n NoteEdit) act {
	return act{
		action: policy.TokenNote,
		event:  audit.Event{Realm: realm, Serial: serial},
		refs:   []Ref{{Realm: realm, Serial: serial}},
		decide: func(ctx context.Context, d *deed) error {
			sub, t, err := tokenOf(d.found[0], serial)
			if err != nil {
				return err
			}
			if sub.User != nil {
				d.event.User = sub.User.Key
			}
			listed, _, err := s.db.Tokens(ctx, TokenQuery{Realm: realm, Serial: serial, Limit: 1})
			if err != nil {
				return unavailable(err)
			}
			if len(listed) == 0 || listed[0].ID != t.ID {
				return errNoToken
			}
			next := *t
			next.Note, next.Tags = listed[0].Note, slices.Clone(listed[0].Tags)
			w := NoteWrite{TokenID: t.ID}
			if n.Note != nil && *n.Note != next.Note {
				w.Note, next.Note = n.Note, *n.Note
				d.note(audit.Field{Name: "note", Value: clip(*n.Note, 500)})
			}
			for _, tag := range n.Add {
				if !slices.Contains(next.Tags, tag) {
					w.Add, next.Tags = append(w.Add, tag), append(next.Tags, tag)
				}
			}
			for _, tag := range n.Drop {
				if i := slices.Index(next.Tags, tag); i >= 0 {
					w.Drop, next.Tags = append(w.Drop, tag), slices.Delete(next.Tags, i, i+1)
				}
			}
			slices.Sort(next.Tags)
			d.token = next
			switch {
			case w.Note == nil && len(w.Add)+len(w.Drop) == 0:
				d.unchanged(&next)
				return nil
			case len(w.Add) > 0 && len(next.Tags) > maxTags:
				return fmt.Errorf("%w: token %s would have %d tags; %d are possible", ErrState, serial, len(next.Tags), maxTags)
			}
			if len(w.Add) > 0 {
				w.Most = maxTags // whoever tags it on another node at this moment
				d.note(audit.Field{Name: "tags_added", Value: strings.Join(w.Add, ",")})
			}
			if len(w.Drop) > 0 {
				d.note(audit.Field{Name: "tags_dropped", Value: strings.Join(w.Drop, ",")})
			}
			d.change.Notes = []NoteWrite{w}
			return nil
		},
	}
}
