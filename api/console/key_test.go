package console

import (
	"bytes"
	"encoding/base64"
	"html"
	"image"
	"image/color"
	"image/png"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// draw makes a picture of a QR code from its SVG, four pixels a module.
func draw(t testing.TB, svg []byte) string {
	t.Helper()
	const scale = 4
	box := regexp.MustCompile(`viewBox="0 0 (\d+) (\d+)"`).FindSubmatch(svg)
	if box == nil {
		t.Fatalf("no viewBox: %s", svg)
	}
	number := func(b []byte) int {
		n, err := strconv.Atoi(string(b))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	side := number(box[1])
	img := image.NewGray(image.Rect(0, 0, side*scale, side*scale))
	for i := range img.Pix {
		img.Pix[i] = 255
	}
	for _, m := range regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1H(\d+)z`).FindAllSubmatch(svg, -1) {
		x, y, n := number(m[1]), number(m[2]), number(m[3])
		if x < qrQuiet || y < qrQuiet || x+n > side-qrQuiet || y >= side-qrQuiet || number(m[4]) != x {
			t.Fatalf("%s is drawn outside the code", m[0])
		}
		for py := range scale {
			for px := range n * scale {
				img.SetGray(x*scale+px, y*scale+py, color.Gray{})
			}
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "qr.png")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// scan reads a picture of a QR code as a phone does.
func scan(t testing.TB, file string) string {
	t.Helper()
	out, err := exec.Command("zbarimg", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", file).Output()
	if err != nil {
		t.Fatalf("zbarimg (package zbar-tools): %v", err)
	}
	return strings.TrimSuffix(string(out), "\n")
}

func TestAQRCodeIsReadAsItWasWritten(t *testing.T) {
	for _, text := range []string{uri, "otpauth://totp/x?secret=" + seed, "a", strings.Repeat("otpauth://", 100)} {
		svg, err := qrSVG([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := scan(t, draw(t, svg)); got != text {
			t.Errorf("%q is read as %q", text, got)
		}
	}
	if _, err := qrSVG(make([]byte, 3000)); err == nil {
		t.Error("a text that fits into no QR code was drawn")
	}
}

// The PNG is one that other programs read, and no byte of the code is left over
// from a buffer that grew.
func TestAQRCodeAsPNGIsReadAsItWasWritten(t *testing.T) {
	for _, text := range []string{uri, "otpauth://totp/x?secret=" + seed, "a", strings.Repeat("otpauth://", 100)} {
		picture, err := QRPNG([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if len(picture) != cap(picture) {
			t.Errorf("%d bytes in a buffer of %d", len(picture), cap(picture))
		}
		img, err := png.Decode(bytes.NewReader(picture))
		if err != nil {
			t.Fatal(err)
		}
		if b := img.Bounds(); b.Dx() != b.Dy() || b.Dx()%pngScale != 0 {
			t.Errorf("the image is %v", b)
		}
		file := filepath.Join(t.TempDir(), "qr.png")
		if err := os.WriteFile(file, picture, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := scan(t, file); got != text {
			t.Errorf("%q is read as %q", text, got)
		}
	}
	if _, err := QRPNG(make([]byte, 3000)); err == nil {
		t.Error("a text that fits into no QR code was drawn")
	}
}

// The buffer for a QR code is as long as it can get: one that grew would leave a
// copy behind.
func TestAQRCodeFitsItsBuffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOfN(rapid.Byte(), 1, 600).Draw(t, "text")
		svg, err := qrSVG(text)
		if err != nil {
			t.Fatal(err)
		}
		side, _ := strconv.Atoi(string(regexp.MustCompile(`viewBox="0 0 (\d+)`).FindSubmatch(svg)[1]))
		size := side - 2*qrQuiet
		if most := 300 + 24*size*(size+1)/2; len(svg) > most {
			t.Fatalf("%d bytes in a buffer of %d", len(svg), most)
		}
	})
}

// A user's name is never taken for a place where the key is to stand.
func TestAUserMayBeCalledLikeAMark(t *testing.T) {
	for _, name := range []string{"@@IMAGE@@", "@@URI@@", "@@KEY@@", `,@@IMAGE@@"`, `"@@URI@@"`, ">@@KEY@@<"} {
		s := newSite(t)
		s.core.invite.User = name
		w := s.send("POST", "/enrol/"+code+"/app", "")
		page := w.Body.String()
		if w.Code != 200 || !strings.Contains(html.UnescapeString(page), "<strong>"+name+"</strong>") {
			t.Errorf("%s: %d %.300s", name, w.Code, page)
		}
		if strings.Count(page, "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ") != 1 || !strings.Contains(page, `src="data:image/svg+xml;base64,PHN2`) || !strings.Contains(page, `href="otpauth:`) {
			t.Errorf("%s: the key does not stand where it should", name)
		}
	}
}

func TestTheKeyOfANewTokenIsShownOnceAndWiped(t *testing.T) {
	s := newSite(t)
	w := s.send("POST", "/enrol/"+code+"/app", "")
	page := w.Body.String()
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, page)
	}
	if !strings.Contains(page, "<code class=\"key\">GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ</code>") {
		t.Errorf("the key cannot be typed: %s", page)
	}
	link := regexp.MustCompile(`href="(otpauth:[^"]*)"`).FindStringSubmatch(page)
	if link == nil || html.UnescapeString(link[1]) != uri {
		t.Errorf("the key's link is %v", link)
	}
	img := regexp.MustCompile(`src="data:image/svg\+xml;base64,([^"]*)"`).FindStringSubmatch(page)
	if img == nil {
		t.Fatalf("no QR code: %s", page)
	}
	svg, err := base64.StdEncoding.DecodeString(img[1])
	if err != nil {
		t.Fatal(err)
	}
	if got := scan(t, draw(t, svg)); got != uri {
		t.Errorf("the QR code says %q", got)
	}
	if !strings.HasSuffix(page, strings.Repeat("\r", Padding)) {
		t.Error("nothing follows the key that overwrites the buffers it went through")
	}
	if strings.Trim(string(s.core.uri), "\x00") != "" {
		t.Error("the URI was not wiped")
	}
	if s.log.Len() != 0 {
		t.Errorf("logged: %s", s.log)
	}
	// No other page has it.
	for _, w := range []*httptest.ResponseRecorder{s.send("GET", "/enrol/"+code, ""), s.send("POST", "/enrol/"+code+"/confirm", "serial=S-1&first=1")} {
		if strings.Contains(w.Body.String(), "GEZD") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

// What holds the key on its way is wiped, not left to the garbage collector.
func TestBuffersOfAKeyAreWiped(t *testing.T) {
	content := &qrContent{text: []byte(uri)}
	svg, err := drawQR(content, svgOf)
	if err != nil {
		t.Fatal(err)
	}
	if len(svg) == 0 || content.bits == nil {
		t.Fatal("nothing was encoded")
	}
	if left := bytes.Trim(content.bits.Bytes(), "\x00"); len(left) != 0 {
		t.Errorf("%d bytes of the code are left", len(left))
	}
}
