package pskc

import (
	"bytes"
	"fmt"
	"io"
)

// maxSigned is the largest file whose signature is checked, in bytes: it is
// held in memory until it is read.
const maxSigned = 8 << 20

// readWhole reads the file into one buffer.
func (r *Reader) readWhole() error {
	r.whole = make([]byte, 0, 64<<10)
	for {
		if len(r.whole) == cap(r.whole) {
			larger := make([]byte, len(r.whole), min(2*cap(r.whole), maxSigned+1))
			copy(larger, r.whole)
			clear(r.whole)
			r.whole = larger
		}
		n, err := r.source.Read(r.whole[len(r.whole):cap(r.whole)])
		r.whole = r.whole[:len(r.whole)+n]
		if len(r.whole) > maxSigned {
			return &Error{Line: 1, Reason: fmt.Sprintf("the file is larger than %d MB, the most that a signature is checked of; split it before it is signed, or import it without the signer's certificate", maxSigned>>20)}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// normalise makes each white space character in the values of attributes a
// space, in place, as XML has it (section 3.3.3) and the decoder does not.
func normalise(file []byte) []byte {
	out := file[:0]
	skip := func(from int, end string) int {
		if i := bytes.Index(file[from:], []byte(end)); i >= 0 {
			return from + i + len(end)
		}
		return len(file)
	}
	for i := 0; i < len(file); {
		next := len(file)
		switch {
		case file[i] != '<':
			if j := bytes.IndexByte(file[i:], '<'); j > 0 {
				next = i + j
			}
		case bytes.HasPrefix(file[i:], []byte("<!--")):
			next = skip(i+4, "-->")
		case bytes.HasPrefix(file[i:], []byte("<![CDATA[")):
			next = skip(i+9, "]]>")
		case bytes.HasPrefix(file[i:], []byte("<?")):
			next = skip(i+2, "?>")
		default: // a tag
			var quote byte
			for ; i < len(file); i++ {
				c := file[i]
				switch {
				case quote == 0 && (c == '"' || c == '\''):
					quote = c
				case quote != 0 && c == quote:
					quote = 0
				case quote != 0 && (c == '\t' || c == '\n' || c == '\r'):
					if c == '\r' && i+1 < len(file) && file[i+1] == '\n' {
						i++
					}
					c = ' '
				}
				out = append(out, c)
				if quote == 0 && c == '>' {
					i++
					break
				}
			}
			continue
		}
		out = append(out, file[i:next]...)
		i = next
	}
	clear(file[len(out):])
	return out
}
