package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	maxLine = 256 << 10        // bytes of one line of a stream
	silence = 45 * time.Second // three signs of life that did not come: the connection is dead
)

// Follower is told of what Follow reads.
type Follower struct {
	Event   func(Event) error // an error ends Follow with it
	Open    func()            // the stream stands: what happens from now on is told; may be nil
	Broken  func(error)       // the stream broke and is taken up again where it was; may be nil
	Silence time.Duration     // how long a stream may say nothing at all; default 45s
}

// Follow tells what happens from f.After on or, when that is 0, from now on. A stream that breaks is taken up again, for as
// long as that takes; one that never was is given up after the client's time of retrying. Follow returns when ctx ends or when
// the server refuses.
func (c *Client) Follow(ctx context.Context, f EventFilter, to Follower) error {
	if to.Open == nil {
		to.Open = func() {}
	}
	if to.Broken == nil {
		to.Broken = func(error) {}
	}
	if to.Silence == 0 {
		to.Silence = silence
	}
	s := stream{client: c, filter: f, to: to}
	end := time.Now().Add(c.options.Retry)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		opened, err := s.read(ctx)
		var own *ownError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &own):
			return own.err
		case !temporary(err), !s.began && time.Now().After(end):
			return err
		}
		if opened {
			pause = 100 * time.Millisecond
		}
		to.Broken(err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}

// ownError is one of the follower's own.
type ownError struct{ err error }

func (o *ownError) Error() string { return o.err.Error() }

// stream is where a follower has got to.
type stream struct {
	client *Client
	filter EventFilter
	to     Follower
	began  bool
}

var errSilent = errors.New("the server has said nothing for too long")

// read reads one stream to its end, which is always an error.
func (s *stream) read(ctx context.Context) (opened bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(s.to.Silence, func() { cancel(errSilent) })
	defer watch.Stop()
	resp, err := s.client.open(ctx, s.filter)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	s.began = true
	s.to.Open()
	err = readStream(resp.Body, func() { watch.Reset(s.to.Silence) }, s.take)
	switch cause := context.Cause(ctx); {
	case cause != nil:
		err = cause
	case err == nil:
		err = fmt.Errorf("the server at %s ended the stream", s.client.options.Addr)
	case cut(err):
		err = fmt.Errorf("the server at %s went away in the middle of the stream", s.client.options.Addr)
	}
	return true, err
}

// cut tells whether err is that of a connection whose other end has gone.
func cut(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// take hands an event on, and remembers the place.
func (s *stream) take(id int64, data string) error {
	s.filter.After = max(s.filter.After, id)
	if data == "" {
		return nil
	}
	var e Event
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return fmt.Errorf("the server at %s sent what is no event: %w", s.client.options.Addr, err)
	}
	if e.Kind == FeedEnded {
		return errors.New("the server ended the stream: " + e.Reason)
	}
	if err := s.to.Event(e); err != nil {
		return &ownError{err}
	}
	return nil
}

// open asks for a stream.
func (c *Client) open(ctx context.Context, f EventFilter) (*http.Response, error) {
	f.Number = 0
	req, err := c.request(ctx, get("/v1/events", f.query()))
	if err != nil {
		return nil, &unsendable{err}
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreached(err)
	}
	if media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";"); resp.StatusCode == http.StatusOK && media == "text/event-stream" {
		return resp, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxLine))
	if err != nil {
		return nil, fmt.Errorf("read the answer of the server at %s: %w", c.options.Addr, err)
	}
	return nil, problemOf(resp, body)
}

// readStream reads server-sent events (HTML standard, 9.2.6) and calls take with the id and the data of each; those without
// data only have an id. alive is called for each line, comments included.
func readStream(r io.Reader, alive func(), take func(id int64, data string) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 4<<10), maxLine)
	var id int64
	var data []string
	size := 0
	for lines.Scan() {
		alive()
		line := strings.TrimSuffix(lines.Text(), "\r")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if id != 0 || data != nil {
				if err := take(id, strings.Join(data, "\n")); err != nil {
					return err
				}
			}
			data, size = nil, 0
		case name == "id":
			id, _ = strconv.ParseInt(value, 10, 64) // what is no number is no place to go on from
		case name == "data":
			if size += len(value); size > maxLine {
				return errors.New("an event of the stream is too long")
			}
			data = append(data, value)
		}
	}
	return lines.Err()
}
