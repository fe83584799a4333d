package station

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Key is a key that is plugged in.
type Key struct {
	Path  string `json:"path"` // of the device
	Maker string `json:"maker,omitempty"`
	Name  string `json:"name,omitempty"`
	USB   string `json:"usb,omitempty"` // vendor:product

	plug string // what is another one each time that a key is plugged in
}

// Watcher sees keys come and go: those on USB, and, where there is a directory, those
// to whose devices the links in it point. Software keys are plugged in so.
type Watcher struct {
	Dir string // may be empty
	USB bool

	known map[string]bool
}

// Now lists the keys that are plugged in.
func (w *Watcher) Now() ([]Key, error) {
	var list []Key
	if w.USB {
		keys, err := Keys()
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			// The kernel numbers what is plugged in; /dev/hidraw3 may be another key by now.
			place, _ := filepath.EvalSymlinks("/sys/class/hidraw/" + filepath.Base(k.Path))
			k.plug = cmp.Or(place, k.Path)
			list = append(list, k)
		}
	}
	if w.Dir != "" {
		entries, err := os.ReadDir(w.Dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			link := filepath.Join(w.Dir, e.Name())
			path, err := filepath.EvalSymlinks(link)
			at, err2 := os.Lstat(link)
			if err != nil || err2 != nil || e.Type()&os.ModeSymlink == 0 {
				continue // it is just being pulled out
			}
			list = append(list, Key{Path: path, Maker: "software", Name: e.Name(), plug: link + at.ModTime().String()})
		}
	}
	slices.SortStableFunc(list, func(a, b Key) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// lookEvery is how often it is looked whether a key came or went.
const lookEvery = 200 * time.Millisecond

// Next waits for a key that it did not answer before.
func (w *Watcher) Next(ctx context.Context) (Key, error) {
	if w.known == nil {
		w.known = map[string]bool{}
	}
	for {
		list, err := w.Now()
		if err != nil {
			return Key{}, err
		}
		there := map[string]bool{}
		for _, k := range list {
			there[k.plug] = true
		}
		for plug := range w.known { // pulled out
			if !there[plug] {
				delete(w.known, plug)
			}
		}
		for _, k := range list {
			if !w.known[k.plug] {
				w.known[k.plug] = true
				return k, nil
			}
		}
		if err := sleep(ctx, lookEvery); err != nil {
			return Key{}, err
		}
	}
}

// Away waits until a key was pulled out.
func (w *Watcher) Away(ctx context.Context, k Key) error {
	for {
		list, err := w.Now()
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(list, func(x Key) bool { return x.plug == k.plug }) {
			return nil
		}
		if err := sleep(ctx, lookEvery); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
