package tokens

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

type failer interface {
	Fatalf(format string, args ...any)
}

// drawn draws a history in both ways, and fails the test if a drawing is not what
// it should be.
func drawn(t failer, h *DriftHistory) (text, svg string) {
	for _, width := range []int{0, 40, 80, 200} {
		text = h.Text(width)
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if utf8.RuneCountInString(line) > max(width, 40) && strings.Contains(strings.TrimSpace(line), " ") {
				t.Fatalf("a line of %d characters in a drawing of %d: %q", utf8.RuneCountInString(line), width, line)
			}
		}
	}
	var b bytes.Buffer
	if err := h.SVG(&b); err != nil {
		t.Fatalf("the SVG: %v", err)
	}
	svg = b.String()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("the SVG is no XML: %v\n%s", err, svg)
		}
		if e, ok := token.(xml.StartElement); ok {
			for _, a := range e.Attr {
				if strings.HasPrefix(a.Name.Local, "on") || strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") || a.Name.Local == "href" {
					t.Fatalf("the SVG has %s=%q", a.Name.Local, a.Value)
				}
			}
			switch e.Name.Local {
			case "svg", "title", "desc", "style", "rect", "line", "text", "circle", "path":
			default:
				t.Fatalf("the SVG holds a %s", e.Name.Local)
			}
		}
	}
	return text, svg
}

func TestADriftIsDrawnAsItWas(t *testing.T) {
	c := crystal{period: 30, ppm: steady(300), slow: 5, rand: rand.New(rand.NewPCG(1, 2))}
	h := verdictOn(30, c.logins(daily(c.rand, 90, 1)))
	h.Token.Serial = `T<script>alert("&")</script>`
	text, svg := drawn(t, h)
	resyncs := 0
	for _, p := range h.Points {
		if p.Resync {
			resyncs++
		}
	}
	// One of each stands in the legend.
	if n := strings.Count(svg, "<circle"); n != len(h.Points)-resyncs+1 {
		t.Errorf("%d circles for %d points, of which %d by resynchronisation", n, len(h.Points), resyncs)
	}
	if n := strings.Count(svg, "<path"); n != resyncs+1 || resyncs == 0 {
		t.Errorf("%d marks for %d resynchronisations", n, resyncs)
	}
	if strings.Contains(svg, "<script") || !strings.Contains(svg, "&lt;script") || !strings.Contains(svg, "fast") {
		t.Error("the serial is not written as text, or the verdict is missing")
	}
	var rows []string
	for line := range strings.Lines(text) {
		if _, row, ok := strings.Cut(line, "|"); ok {
			rows = append(rows, row)
		}
	}
	// It rises from the bottom left to the top right.
	first, last := -1, -1
	for i, row := range rows {
		if strings.ContainsAny(row, "*R") {
			if first < 0 {
				first = strings.IndexAny(row, "*R")
			}
			last = strings.LastIndexAny(row, "*R")
		}
		if strings.Contains(row, "-") && !strings.Contains(text, "  0 |") {
			t.Errorf("row %d is that of zero, and no tick says so", i)
		}
	}
	if first < 100 || last > 60 || !strings.Contains(text, "R a resynchronisation") {
		t.Errorf("the first row has its points from column %d, the last up to %d:\n%s", first, last, text)
	}
	if err := h.SVG(full{}); !errors.Is(err, errFull) {
		t.Errorf("to a full disk: %v", err)
	}
}

var errFull = errors.New("the disk is full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// A long history is thinned out evenly, and keeps its end.
func TestALongHistoryIsDrawnInPart(t *testing.T) {
	h := &DriftHistory{Token: Token{Serial: "T1", Type: TOTP, Period: 30}}
	at := time.Date(2026, 1, 2, 8, 0, 0, 0, time.UTC)
	for i := range 20_000 {
		h.Points = append(h.Points, DriftPoint{Time: at.Add(time.Duration(i) * time.Minute), Resync: i%100 == 7})
	}
	h.judge(0)
	_, svg := drawn(t, h)
	if n := strings.Count(svg, "<circle") + strings.Count(svg, "<path"); n < 1000 || n > 2*drawPoints+2 {
		t.Errorf("%d marks for %d points", n, len(h.Points))
	}
	if got := thin(h.Points); got[len(got)-1] != h.Points[len(h.Points)-1] {
		t.Error("the end is not drawn")
	}
}
