package tokens

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// drawPoints is how many points a drawing shows.
const drawPoints = 1500

// A plot is the frame in which a history is drawn: from and to in time, low and
// high in seconds.
type plot struct {
	from, to  time.Time
	low, high float64
	ticks     []float64 // of the seconds, from low to high
	points    []DriftPoint
}

func (h *DriftHistory) plot() plot {
	p := plot{points: thin(h.Points)}
	period := float64(max(h.Token.Period, 1))
	p.low, p.high = -period, period
	for i, at := range p.points {
		if i == 0 || at.Time.Before(p.from) {
			p.from = at.Time
		}
		if i == 0 || at.Time.After(p.to) {
			p.to = at.Time
		}
		p.low, p.high = min(p.low, at.Seconds), max(p.high, at.Seconds)
	}
	if d := p.to.Sub(p.from); d < time.Minute {
		p.from, p.to = p.from.Add(-time.Minute), p.to.Add(time.Minute)
	}
	each := tickStep((p.high - p.low) / 5)
	p.low, p.high = math.Floor(p.low/each)*each, math.Ceil(p.high/each)*each
	for i := math.Round(p.low / each); i <= math.Round(p.high/each); i++ {
		p.ticks = append(p.ticks, i*each)
	}
	return p
}

// thin leaves out points of a long history, evenly, but no resynchronisation as
// long as those are few.
func thin(points []DriftPoint) []DriftPoint {
	if len(points) <= drawPoints {
		return points
	}
	out := make([]DriftPoint, 0, 2*drawPoints)
	every := len(points)/drawPoints + 1
	for i, p := range points {
		if i%every == 0 || i == len(points)-1 || p.Resync && len(out) < 2*drawPoints-1 {
			out = append(out, p)
		}
	}
	return out
}

// tickStep is a round distance of ticks, in seconds, of at least that many: 1, 2 or 5
// times a power of ten, and from a minute on what clocks have.
func tickStep(least float64) float64 {
	for _, s := range []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400} {
		if s >= least {
			return s
		}
	}
	for s := 86400.0; ; s *= 10 {
		for _, n := range []float64{1, 2, 5} {
			if s*n >= least {
				return s * n
			}
		}
	}
}

// tick is what stands beside a tick: how far the clock is ahead.
func tick(seconds float64) string {
	sign := "+"
	if seconds < 0 {
		sign, seconds = "-", -seconds
	}
	switch {
	case seconds == 0:
		return "0"
	case seconds >= 86400:
		return fmt.Sprintf("%s%.4g d", sign, seconds/86400)
	case seconds >= 3600:
		return fmt.Sprintf("%s%.3g h", sign, seconds/3600)
	case seconds >= 120:
		return fmt.Sprintf("%s%.3g min", sign, seconds/60)
	}
	return fmt.Sprintf("%s%.0f s", sign, seconds)
}

// when is what stands below a moment of the plot.
func (p *plot) when(t time.Time) string {
	switch d := p.to.Sub(p.from); {
	case d < 36*time.Hour:
		return t.UTC().Format("15:04")
	case d < 300*24*time.Hour:
		return t.UTC().Format("2 Jan")
	}
	return t.UTC().Format("Jan 2006")
}

// x and y are where a point lies, each from 0 to 1, from the left and from the top.
func (p *plot) x(t time.Time) float64 { return t.Sub(p.from).Seconds() / p.to.Sub(p.from).Seconds() }

func (p *plot) y(seconds float64) float64 { return (p.high - seconds) / (p.high - p.low) }

// caption is the history in one line.
func (h *DriftHistory) caption() string {
	s := fmt.Sprintf("Token %s: %s", h.Token.Serial, h.Verdict)
	if h.Verdict == DriftNone {
		s = fmt.Sprintf("Token %s: no verdict", h.Token.Serial)
	}
	if h.PPM != 0 {
		s += ", " + sayRate(h.PPM/1e6)
	}
	if n := len(h.Points); n > 0 {
		s += fmt.Sprintf(", %s from %s to %s", count(n, "accepted code"),
			h.Points[0].Time.UTC().Format(time.DateOnly), h.Points[n-1].Time.UTC().Format(time.DateOnly))
	}
	return s
}

// Text draws the history in ASCII, width characters wide, 40 at least: how far the
// token's clock was ahead, over time.
func (h *DriftHistory) Text(width int) string {
	width = max(width, 40)
	var b strings.Builder
	wrap(&b, h.caption(), width)
	if len(h.Points) > 0 {
		b.WriteString("\n")
		h.draw(&b, width)
		b.WriteString("\n")
	}
	wrap(&b, h.Says, width)
	return b.String()
}

func (h *DriftHistory) draw(b *strings.Builder, width int) {
	p := h.plot()
	const perTick = 3
	rows, margin := perTick*(len(p.ticks)-1)+1, 0
	for _, s := range p.ticks {
		margin = max(margin, len(tick(s)))
	}
	columns := width - margin - 3
	grid := make([][]byte, rows)
	for i := range grid {
		grid[i] = []byte(strings.Repeat(" ", columns))
	}
	at := func(share float64, n int) int { return min(max(int(math.Round(share*float64(n-1))), 0), n-1) }
	if p.low <= 0 && p.high >= 0 {
		for i := range columns {
			grid[at(p.y(0), rows)][i] = '-'
		}
	}
	for _, mark := range []byte("*R") { // the resynchronisations on top
		for _, point := range p.points {
			if point.Resync == (mark == 'R') {
				grid[at(p.y(point.Seconds), rows)][at(p.x(point.Time), columns)] = mark
			}
		}
	}
	for i, row := range grid {
		label := ""
		if i%perTick == 0 {
			label = tick(p.ticks[len(p.ticks)-1-i/perTick])
		}
		fmt.Fprintf(b, " %*s |%s\n", margin, label, strings.TrimRight(string(row), " "))
	}
	fmt.Fprintf(b, " %*s +%s\n", margin, "", strings.Repeat("-", columns))
	left, right := p.when(p.from), p.when(p.to)
	middle := p.when(p.from.Add(p.to.Sub(p.from) / 2))
	line := []byte(strings.Repeat(" ", columns))
	copy(line, left)
	copy(line[columns-len(right):], right)
	if from := (columns - len(middle)) / 2; from > len(left)+1 && from+len(middle) < columns-len(right)-1 {
		copy(line[from:], middle)
	}
	fmt.Fprintf(b, " %*s  %s\n\n", margin, "", line)
	wrap(b, legend(p.points), width)
}

// legend says what the marks of a text are.
func legend(points []DriftPoint) string {
	s := "* is an accepted code; up is ahead of the server's clock."
	for _, p := range points {
		if p.Resync {
			return "* is an accepted code, R a resynchronisation; up is ahead of the server's clock."
		}
	}
	return s
}

// wrap writes text in lines of at most width characters; a longer word has a line of
// its own.
func wrap(b *strings.Builder, text string, width int) {
	n := 0
	for word := range strings.FieldsSeq(text) {
		long := utf8.RuneCountInString(word)
		switch {
		case n == 0:
		case n+1+long > width:
			b.WriteString("\n")
			n = 0
		default:
			b.WriteString(" ")
			n++
		}
		b.WriteString(word)
		n += long
	}
	b.WriteString("\n")
}

// The drawing's measures, in its own units.
const (
	svgWidth           = 760
	svgLeft, svgRight  = 70, 20
	svgColumns         = svgWidth - svgLeft - svgRight
	svgTop, svgFloor   = 44, 254 // of the plot
	svgDates           = svgFloor + 18
	svgLegend          = svgDates + 24
	svgLine            = 16
	svgWords, svgTimes = 108, 5 // characters in a line; moments below the plot
)

// svgStyle gives the drawing the colours of a dark page where that is wanted; where
// styles are not allowed the attributes stay, which are those of a light one.
const svgStyle = `<style>@media (prefers-color-scheme: dark) {
.page { fill: #16181c } .text { fill: #d6d9de } .rule { stroke: #3a3f47 } .zero { stroke: #8a919c }
.code { fill: #6cb2ff } .jump { fill: #ffb454 } .reach { fill: #1f2a38 }
}</style>
`

// SVG draws the history: how far the token's clock was ahead, over time. The drawing
// stands alone, holds no script, and fits light and dark pages.
func (h *DriftHistory) SVG(w io.Writer) error {
	var says strings.Builder
	wrap(&says, h.Says, svgWords)
	lines := strings.Split(strings.TrimSpace(says.String()), "\n")
	under := svgTop // where the words begin
	if len(h.Points) > 0 {
		under = svgLegend + 10
	}
	height := under + svgLine*len(lines) + 20
	d := drawing{w: bufio.NewWriter(w)}
	d.say(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" font-family="sans-serif" font-size="12">`+"\n",
		svgWidth, height, svgWidth, height)
	d.say("<title>%s</title>\n<desc>%s</desc>\n%s", escaped(h.caption()), escaped(h.Says), svgStyle)
	d.say(`<rect class="page" width="%d" height="%d" fill="#ffffff"/>`+"\n", svgWidth, height)
	d.text(svgLeft, 24, "start", "14", h.caption())
	if len(h.Points) > 0 {
		h.svgPlot(&d)
	}
	for i, line := range lines {
		d.text(svgLeft, under+svgLine*(i+1), "start", "12", line)
	}
	d.say("</svg>\n")
	if d.err != nil {
		return d.err
	}
	return d.w.Flush()
}

func (h *DriftHistory) svgPlot(d *drawing) {
	p := h.plot()
	x := func(t time.Time) float64 { return svgLeft + p.x(t)*svgColumns }
	y := func(seconds float64) float64 {
		return svgTop + p.y(seconds)*(svgFloor-svgTop)
	}
	// Where a code lies that was typed in its own time step, by a clock that is right.
	half := float64(h.Token.Period) / 2
	d.say(`<rect class="reach" x="%d" y="%.1f" width="%d" height="%.1f" fill="#e8f1fb"/>`+"\n", svgLeft, y(half), svgColumns, y(-half)-y(half))
	for _, s := range p.ticks {
		class, colour := "rule", "#d9dde3"
		if s == 0 {
			class, colour = "zero", "#7a828e"
		}
		d.say(`<line class="%s" x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="%s"/>`+"\n", class, svgLeft, y(s), svgWidth-svgRight, y(s), colour)
		d.text(svgLeft-8, int(y(s))+4, "end", "12", tick(s))
	}
	last := ""
	for i := range svgTimes {
		t := p.from.Add(p.to.Sub(p.from) / (svgTimes - 1) * time.Duration(i))
		anchor := "middle"
		switch i {
		case 0:
			anchor = "start"
		case svgTimes - 1:
			anchor = "end"
		}
		if text := p.when(t); text != last {
			d.text(int(x(t)), svgDates, anchor, "12", text)
			last = text
		}
	}
	for _, point := range p.points {
		if !point.Resync {
			d.code(x(point.Time), y(point.Seconds))
		}
	}
	for _, point := range p.points {
		if point.Resync {
			d.resync(x(point.Time), y(point.Seconds))
		}
	}
	d.code(svgLeft+5, svgLegend-4)
	d.text(svgLeft+16, svgLegend, "start", "12", "accepted code")
	d.resync(svgLeft+126, svgLegend-4)
	d.text(svgLeft+138, svgLegend, "start", "12", "resynchronisation")
	d.text(svgWidth-svgRight, svgLegend, "end", "12", "+ is ahead of the server's clock")
}

func (d *drawing) code(x, y float64) {
	d.say(`<circle class="code" cx="%.1f" cy="%.1f" r="2.5" fill="#1b6ac9"/>`+"\n", x, y)
}

func (d *drawing) resync(x, y float64) {
	d.say(`<path class="jump" d="M%.1f %.1fl6 6l-6 6l-6 -6z" fill="#c25e00"/>`+"\n", x, y-6)
}

// A drawing is written until the first error.
type drawing struct {
	w   *bufio.Writer
	err error
}

func (d *drawing) say(format string, args ...any) {
	if d.err == nil {
		_, d.err = fmt.Fprintf(d.w, format, args...)
	}
}

func (d *drawing) text(x, y int, anchor, size, text string) {
	d.say(`<text class="text" x="%d" y="%d" text-anchor="%s" font-size="%s" fill="#23272e">%s</text>`+"\n", x, y, anchor, size, escaped(text))
}

// escaped is text as an XML document may hold it: five characters of it are
// escaped in XML as in HTML, and what XML cannot hold at all is left out.
func escaped(text string) string {
	return html.EscapeString(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == 0xFFFE || r == 0xFFFF {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "")))
}
