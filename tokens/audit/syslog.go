package audit

import (
	"encoding/hex"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// SyslogID names our structured data. 32473 is the number that RFC 5612 sets aside:
// we have none of our own, and "watchword" makes it unlike others' use of it.
const SyslogID = "watchword@32473"

// facility is "log audit" (RFC 5424 section 6.2.1, table 1).
const facility = 13

// The severities of RFC 5424 section 6.2.1, table 2, that are used.
const (
	sevCritical = 2
	sevError    = 3
	sevWarning  = 4
	sevNotice   = 5
	sevInfo     = 6
)

// syslogSeverity goes by what became of it.
func (e *Event) syslogSeverity() int {
	switch {
	case e.grave():
		return sevCritical
	case e.Outcome == "error":
		return sevError
	case e.Outcome == "denied":
		return sevWarning
	case e.Outcome == "ok" || e.Outcome == "accept" || e.Outcome == "challenge":
		return sevInfo
	}
	return sevNotice
}

// grave says whether somebody altered what nobody may, or copied a key. An attempt that
// ended in a question says it in "first".
func (e *Event) grave() bool {
	return e.Reason == "tampered" || e.Reason == "cloned" || e.value("first") == "tampered" || e.Action == "audit.verify" && e.value("intact") == "false"
}

// value is that of a detail, empty if there is none of that name.
func (e *Event) value(name string) string {
	for _, f := range e.Detail {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// AppendSyslog appends the record as a message of RFC 5424: what is searched for as
// structured data, and all of it, as AppendJSON writes it, as the text. host is this
// server's name.
func (r *Record) AppendSyslog(b []byte, host string) []byte {
	// HEADER, section 6.2: PRI VERSION SP TIMESTAMP SP HOSTNAME SP APP-NAME SP PROCID SP MSGID
	b = append(b, '<')
	b = strconv.AppendInt(b, int64(facility*8+r.syslogSeverity()), 10)
	b = append(b, ">1 "...)
	b = r.Time.UTC().AppendFormat(b, micros)
	b = append(b, ' ')
	b = appendPrintable(b, host, 255)
	b = append(b, " watchword - "...)
	b = appendPrintable(b, r.Action, 32)
	// STRUCTURED-DATA, section 6.3.
	b = append(b, " ["...)
	b = append(b, SyslogID...)
	b = appendParam(b, "chain", strconv.FormatInt(r.Chain, 10))
	b = appendParam(b, "seq", strconv.FormatInt(r.Seq, 10))
	b = appendParam(b, "hash", hex.EncodeToString(r.Hash[:]))
	for _, f := range r.texts() {
		if f.Value != "" {
			b = appendParam(b, f.Name, f.Value)
		}
	}
	// MSG, section 6.4: UTF-8 is announced by a byte order mark.
	b = append(b, "] \xEF\xBB\xBF"...)
	return r.AppendJSON(b)
}

// appendPrintable appends a field of the header: printable US-ASCII without
// spaces, NILVALUE if nothing is left of it.
func appendPrintable(b []byte, s string, most int) []byte {
	n := len(b)
	for i := 0; i < len(s) && len(b)-n < most; i++ {
		if s[i] > ' ' && s[i] < 0x7f {
			b = append(b, s[i])
		}
	}
	if len(b) == n {
		b = append(b, '-')
	}
	return b
}

// appendParam appends a parameter of structured data (section 6.3.3). Control
// characters, which many receivers would rewrite or cut at, become spaces here; in
// the text they stand as they are, escaped.
func appendParam(b []byte, name, value string) []byte {
	b = append(append(append(b, ' '), name...), `="`...)
	for _, c := range strings.ToValidUTF8(value, "\uFFFD") {
		switch {
		case c == '"' || c == '\\' || c == ']':
			b = append(b, '\\', byte(c))
		case unicode.IsControl(c):
			b = append(b, ' ')
		default:
			b = utf8.AppendRune(b, c)
		}
	}
	return append(b, '"')
}

// AppendFrame appends a message as TLS and TCP carry it: its length in octets, a
// space, the message (RFC 5425 section 4.3, RFC 6587 section 3.4.1).
func AppendFrame(b, message []byte) []byte {
	b = strconv.AppendInt(b, int64(len(message)), 10)
	return append(append(b, ' '), message...)
}
