package http1

import (
	"bytes"
	"net/http"
	"strconv"
	"time"
)

// response keeps an answer until it is whole. It is used again for the next request of its connection.
type response struct {
	header http.Header
	last   bool // the connection ends with it
	status int
	body   []byte
	out    bytes.Buffer
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
	if r.out.Cap() > kept {
		r.out = bytes.Buffer{}
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
	r.out.Reset()
	b := append(r.out.AvailableBuffer(), "HTTP/1.1 "...)
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
	r.out.Write(append(b, "\r\n"...))
	_ = r.header.WriteSubset(&r.out, ours) // a buffer does not fail; it takes the line breaks out of values
	r.out.WriteString("\r\n")
	r.out.Write(r.body)
	return r.out.Bytes()
}
