package seeds

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"watchword/hsm"
	"watchword/tokens"
)

// prefixSize is how much of a file Detect looks at, in bytes.
const prefixSize = 8192

// Format is a kind of seed file. Each is defined in a file of its own and
// listed in formats.
type Format struct {
	Name  string // as --format and the report name it
	Title string // as people name it

	// Detect looks at the beginning of a file, without a byte order mark; whole
	// says that there is no more of it. It says whether the file is of this
	// format, and in either case why.
	Detect func(prefix []byte, whole bool) (is bool, reason string)

	// Open begins to read a file. It does not read from r yet.
	Open func(r io.Reader, o OpenOptions) Reader
}

// OpenOptions is what some formats need to read a file.
type OpenOptions struct {
	Key      []byte    // pre-shared key, see ParseKeyFile; nil if none was given
	Password []byte    // nil if none was given
	Now      time.Time // what validity periods are judged by

	PGPKey    []byte // private OpenPGP key, armoured or binary, protected by Password or not; nil if none was given
	PGPSigner []byte // public OpenPGP keys, one of which a message must be signed by; nil if that need not be checked
	vault     *vault // the PGP keys in the HSM; nil if there are none

	Choices Choices // what the file leaves open

	// Signer is whose signature the file must carry, where its format can carry
	// one; nil if it need not be checked. See ParseSignerFile.
	Signer *x509.Certificate

	AllowExpired bool // read keys whose validity period is over, and note it
	AllowRSA15   bool // read seeds that are encrypted by RSAES-PKCS1-v1_5
	Transported  bool // the core takes over seeds that are encrypted to its transport key
}

// Choices are what the person who imports knows of the tokens and the file does
// not say, or says in a way that products read differently. A zero field is not
// chosen. What a file states is never overruled by a choice; a record that needs
// one which was not made is refused with a reason that names its flag.
type Choices struct {
	Type   tokens.Type // --type
	Hash   hsm.Hash    // --hash
	Digits int         // --digits
	Period int         // --period, seconds

	// Encoding is how seeds are written, where the file's format leaves it open
	// (--encoding).
	Encoding Encoding

	// TimeOrigin is what times in a SafeWord file count from (--time-origin);
	// zero: 2000-01-01 00:00 UTC.
	TimeOrigin time.Time
}

// Auto is the format's name that asks for detection.
const Auto = "auto"

// formats holds every format that is known, in the order of detection: what has
// an unmistakable beginning first, what is only a table of values last.
var formats = slices.Concat([]*Format{&pskcXML}, deviceFormats, csvFormats)

// Formats lists the formats that a file can have.
func Formats() []Format {
	list := make([]Format, len(formats))
	for i, f := range formats {
		list[i] = *f
	}
	return list
}

// FormatNamed finds a format by the name that --format takes, or fails with a
// *FileError that lists the names.
func FormatNamed(name string) (*Format, error) {
	names := []string{Auto}
	for _, f := range formats {
		if f.Name == strings.ToLower(name) {
			return f, nil
		}
		names = append(names, f.Name)
	}
	return nil, &FileError{Reason: "unknown format; --format is one of " + strings.Join(names, ", ")}
}

// Detect tells a file's format from its first few thousand bytes; whole says
// that prefix is all of it. The reason is for people: "looks like OATH CSV:
// header row in line 1". The error is a *FileError that says why the file is
// none of the formats.
func Detect(prefix []byte, whole bool) (f *Format, reason string, err error) {
	if what := foreign(prefix); what != "" {
		return nil, "", &FileError{Reason: what}
	}
	for _, w := range wrappers {
		is, refuse := w.is(prefix)
		if is {
			refuse = "this is a " + w.title + "; a format is that of the file inside"
		}
		if refuse != "" {
			return nil, "", &FileError{Reason: refuse}
		}
	}
	prefix = bytes.TrimPrefix(prefix, bom)
	if line := doctype(prefix); line > 0 {
		return nil, "", &FileError{Line: line, Reason: noDTD}
	}
	if whole && len(bytes.TrimSpace(prefix)) == 0 {
		return nil, "", &FileError{Reason: "the file is empty"}
	}
	var why []string
	for _, f := range formats {
		is, reason := f.Detect(prefix, whole)
		if is {
			return f, "looks like " + f.Title + ": " + reason, nil
		}
		why = append(why, fmt.Sprintf("not %s (%s)", f.Title, reason))
	}
	return nil, "", &FileError{Reason: "the format cannot be told from the content: " + strings.Join(why, ", ") + "; name it with --format if you know it"}
}

// noDTD is why a file with a document type, which is where entities are made, is
// refused whatever it holds.
const noDTD = "the file has a document type declaration (DTD); no seed file needs one, and it is refused"

// doctype answers the line on which the document type of an XML file begins; zero
// if it has none. It stands before the root element, behind nothing but white
// space, comments and processing instructions (XML, section 2.8).
func doctype(prefix []byte) int {
	rest := prefix
	for {
		rest = bytes.TrimLeft(rest, " \t\r\n")
		end := ""
		switch {
		case bytes.HasPrefix(rest, []byte("<!DOCTYPE")):
			return 1 + bytes.Count(prefix[:len(prefix)-len(rest)], []byte("\n"))
		case bytes.HasPrefix(rest, []byte("<!--")):
			end = "-->"
		case bytes.HasPrefix(rest, []byte("<?")):
			end = "?>"
		default:
			return 0
		}
		_, after, found := bytes.Cut(rest[2:], []byte(end))
		if !found {
			return 0
		}
		rest = after
	}
}

// foreign names files that are certainly no seed file as it stands.
func foreign(prefix []byte) string {
	for _, k := range []struct{ magic, says string }{
		{"\x1f\x8b", "this is compressed with gzip; unpack it first"},
		{"7z\xbc\xaf\x27\x1c", "this is an archive of 7-Zip's own format; pack the file as .zip (7z a -tzip -mem=AES256)"},
		{"Rar!\x1a\x07", "this is a RAR archive; pack the file as .zip"},
		{"\xff\xfe", "the text is in UTF-16; convert it to UTF-8 first"},
		{"\xfe\xff", "the text is in UTF-16; convert it to UTF-8 first"},
	} {
		if bytes.HasPrefix(prefix, []byte(k.magic)) {
			return k.says
		}
	}
	return refuseSDTID(bytes.TrimPrefix(prefix, bom))
}
