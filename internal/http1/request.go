package http1

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// maxHeaders is how many header lines a plain request may have.
const maxHeaders = 32

// errMore says that a request that may be plain has not come to its end.
var errMore = errors.New("there is more to come")

var lineEnd = []byte("\r\n")

// request is one with the room for its parts, which is used again for the next of its connection.
type request struct {
	http.Request
	url    url.URL
	header http.Header
	values []string
	body   body
	seen   map[string][]field // by method, in their order: the next request mostly has the same
}

// field is a header line that was found to be plain.
type field struct{ line, name, value string }

// parse reads the request at the beginning of text, which stays in use as its body, and returns its size. The error is errMore
// or errOther. Whatever a careful reader might read in two ways is not plain.
func (r *request) parse(text []byte, template *http.Request, takes func(method, path string) bool) (int, error) {
	line, rest, whole := bytes.Cut(text, lineEnd)
	if !whole {
		return 0, unfinished(text)
	}
	method, target, _ := strings.Cut(string(line), " ")
	path, version, _ := strings.Cut(target, " ")
	if version != "HTTP/1.1" || !isPath.consists(path) || path[0] != '/' || !takes(method, path) {
		return 0, errOther
	}
	r.renew(template)
	r.Method, r.RequestURI, r.url.Path = method, path, path
	rest, err := r.readHeader(rest)
	if err != nil {
		return 0, err
	}
	start := len(text) - len(rest)
	size := start + int(r.ContentLength)
	switch {
	case r.Host == "" || size > bufferSize:
		return 0, errOther
	case size > len(text):
		return 0, errMore
	}
	if size > start {
		r.body.Reset(text[start:size])
		r.Body = &r.body
	}
	return size, nil
}

func (r *request) renew(template *http.Request) {
	if r.header == nil {
		r.header, r.seen = http.Header{}, map[string][]field{}
	}
	clear(r.header)
	r.Request, r.url, r.values = *template, url.URL{}, r.values[:0]
	r.URL, r.Header, r.Body = &r.url, r.header, http.NoBody
}

// unfinished judges a request whose head has not come to its end: lines that end otherwise may never do so.
func unfinished(text []byte) error {
	for i, b := range text {
		if b == '\n' && (i == 0 || text[i-1] != '\r') {
			return errOther
		}
	}
	return errMore
}

// readHeader reads header lines and returns what stands behind them. The error is errMore or errOther.
func (r *request) readHeader(text []byte) (rest []byte, err error) {
	seen := r.seen[r.Method]
	for n := 0; ; n++ {
		line, behind, whole := bytes.Cut(text, lineEnd)
		switch {
		case !whole:
			return nil, unfinished(text)
		case len(line) == 0:
			r.seen[r.Method] = seen
			return behind, nil
		case n == maxHeaders:
			return nil, errOther
		case n == len(seen):
			seen = append(seen, field{})
		}
		f := &seen[n]
		if string(line) != f.line && !f.read(string(line)) || !r.readField(f.name, f.value) {
			return nil, errOther
		}
		text = behind
		if f.name == "Host" { // as net/http does
			continue
		}
		r.values = append(r.values, f.value)
		last, known := len(r.values), len(r.Header)
		r.Header[f.name] = r.values[last-1 : last : last] // who adds to it must not write into the next
		if len(r.Header) == known {
			return nil, errOther // it was there
		}
	}
}

// read reads a header line; false: it is not plain.
func (f *field) read(line string) bool {
	name, value, ok := strings.Cut(line, ":")
	value = strings.Trim(value, " \t")
	if !ok || !isName.consists(name) || value != "" && !isReadable.consists(value) {
		*f = field{}
		return false
	}
	*f = field{line, textproto.CanonicalMIMEHeaderKey(name), value}
	return true
}

// readField takes in what has a meaning for the connection; false: that is not plain.
func (r *request) readField(name, value string) bool {
	switch name {
	case "Host":
		if r.Host != "" || !isHost.consists(value) {
			return false
		}
		r.Host = value
	case "Content-Length":
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil || value[0] == '+' {
			return false
		}
		r.ContentLength = int64(n)
	case "Connection":
		return value == "keep-alive"
	case "Transfer-Encoding", "Trailer", "Te", "Upgrade", "Expect", "Pragma", "Proxy-Connection", "Keep-Alive":
		return false
	}
	return true
}

// set is some of the bytes.
type set [256]bool

var isName, isHost, isPath, isReadable = alphanumeric("-"), alphanumeric("-.:[]"), alphanumeric("-./_"), readable()

func alphanumeric(others string) *set {
	s := &set{}
	for _, b := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" + others) {
		s[b] = true
	}
	return s
}

// readable are the bytes of printable ASCII.
func readable() *set {
	s := &set{}
	for b := ' '; b <= '~'; b++ {
		s[b] = true
	}
	return s
}

// consists says whether text is not empty and has only bytes of the set.
func (s *set) consists(text string) bool {
	for i := range len(text) {
		if !s[text[i]] {
			return false
		}
	}
	return text != ""
}

// body reads a request's body from the connection's buffer.
type body struct{ bytes.Reader }

var _ io.ReadCloser = (*body)(nil)

// Close does nothing: there is no more of the body than is in the buffer.
func (*body) Close() error { return nil }
