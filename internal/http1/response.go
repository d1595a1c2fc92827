package http1

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// response keeps an answer until it is whole. It is used again for the next request of its connection.
type response struct {
	header http.Header
	last   bool // the connection ends with it
	status int
	body   []byte
	out    []byte
	second int64  // of date
	date   []byte // as the header says it
}

// kept is how many bytes of room are kept for the next answer.
const kept = 16 << 10

func (r *response) reset() {
	clear(r.header)
	r.status, r.body = 0, r.body[:0]
	if cap(r.body) > kept {
		r.body = nil
	}
	if cap(r.out) > kept {
		r.out = nil
	}
}

// Header is that of http.ResponseWriter.
func (r *response) Header() http.Header { return r.header }

// WriteHeader sets the status once; informational ones are not sent.
func (r *response) WriteHeader(status int) {
	if r.status == 0 && status >= http.StatusOK {
		r.status = status
	}
}

// Write adds to the body and never fails.
func (r *response) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	r.body = append(r.body, p...)
	return len(p), nil
}

// ours are the headers that no handler sets.
var ours = map[string]bool{"Connection": true, "Content-Length": true, "Date": true, "Transfer-Encoding": true}

// text is the whole answer (RFC 9112 section 4); it is good until the next reset.
func (r *response) text(now time.Time) []byte {
	r.WriteHeader(http.StatusOK)
	b := append(r.out[:0], "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(r.status), 10)
	b = append(append(append(b, ' '), http.StatusText(r.status)...), "\r\nDate: "...)
	if second := now.Unix(); r.date == nil || second != r.second {
		r.second, r.date = second, now.UTC().AppendFormat(r.date[:0], http.TimeFormat)
	}
	b = append(b, r.date...)
	if r.status != http.StatusNoContent && r.status != http.StatusNotModified {
		b = append(b, "\r\nContent-Length: "...)
		b = strconv.AppendInt(b, int64(len(r.body)), 10)
	} else {
		r.body = nil
	}
	if r.last {
		b = append(b, "\r\nConnection: close"...)
	}
	b = append(b, "\r\n"...)
	for name, values := range r.header {
		if !ours[name] {
			b = appendField(b, name, values)
		}
	}
	r.out = append(append(b, "\r\n"...), r.body...)
	return r.out
}

// appendField adds header lines. Those that are not plain are written by net/http, which knows what to leave out of them.
func appendField(b []byte, name string, values []string) []byte {
	for _, value := range values {
		if !isName.consists(name) || !isReadable.consists(value) || strings.TrimSpace(value) != value {
			var lines bytes.Buffer
			_ = http.Header{name: {value}}.Write(&lines) // a buffer does not fail
			b = append(b, lines.Bytes()...)
		} else {
			b = append(append(append(append(b, name...), ": "...), value...), "\r\n"...)
		}
	}
	return b
}
