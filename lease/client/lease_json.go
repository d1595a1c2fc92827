package client

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// AppendJSON appends the lease as encoding/json writes it, byte for byte, but without reflection: a busy server answers thousands a
// second. It is no MarshalJSON, which a type that embeds a lease would inherit. The error is that of a time that is no RFC 3339.
func (l Lease) AppendJSON(b []byte) ([]byte, error) {
	o := object{text: append(b, '{')}
	o.string("id", l.ID)
	o.string("cache", l.Cache)
	o.string("holder", l.Holder)
	o.string("owner", l.Owner)
	o.string("phase", string(l.Phase))
	o.number("position", l.Position)
	o.some("reason", l.Reason)
	if l.Guest != nil {
		o.name("guest")
		o.guest(l.Guest)
	}
	o.string("ttl", time.Duration(l.TTL).String())
	o.time("created", l.Created)
	o.when("granted", l.Granted)
	o.when("deadline", l.Deadline)
	if l.Left != 0 {
		o.string("left", time.Duration(l.Left).String())
	}
	o.when("cap", l.Cap)
	o.when("wait_until", l.WaitUntil)
	o.when("ended", l.Ended)
	o.some("how", l.How)
	o.some("outcome", l.Outcome)
	o.some("source", l.Source)
	o.name("hit")
	o.text = strconv.AppendBool(o.text, l.Hit)
	o.some("token", l.Token)
	o.some("certificate", l.Certificate)
	return append(o.text, '}'), o.err
}

// object is one that is being written.
type object struct {
	text []byte
	err  error
}

func (o *object) guest(g *Guest) {
	o.text = append(o.text, '{')
	o.string("name", g.Name)
	o.name("incarnation")
	o.text = strconv.AppendInt(o.text, int64(g.Incarnation), 10)
	o.some("host", g.Host)
	o.number("port", g.Port)
	o.some("user", g.User)
	o.some("host_key", g.HostKey)
	o.some("health", g.Health)
	o.text = append(o.text, '}')
}

func (o *object) name(name string) {
	if o.text[len(o.text)-1] != '{' {
		o.text = append(o.text, ',')
	}
	o.text = append(append(append(o.text, '"'), name...), `":`...)
}

func (o *object) string(name, value string) {
	o.name(name)
	for i := range len(value) {
		if !plain[value[i]] {
			text, _ := json.Marshal(value) // a string does not fail
			o.text = append(o.text, text...)
			return
		}
	}
	o.text = append(append(append(o.text, '"'), value...), '"')
}

// plain are the bytes that encoding/json never escapes.
var plain = func() (set [256]bool) {
	for c := ' '; c <= '~'; c++ {
		set[c] = !strings.ContainsRune(`"\<>&`, c)
	}
	return set
}()

func (o *object) time(name string, value time.Time) {
	o.name(name)
	text, err := value.AppendText(append(o.text, '"'))
	if err != nil {
		o.err = err
		return
	}
	o.text = append(text, '"')
}

// some, number and when leave out what is zero.
func (o *object) some(name, value string) {
	if value != "" {
		o.string(name, value)
	}
}

func (o *object) number(name string, value int) {
	if value != 0 {
		o.name(name)
		o.text = strconv.AppendInt(o.text, int64(value), 10)
	}
}

func (o *object) when(name string, value time.Time) {
	if !value.IsZero() {
		o.time(name, value)
	}
}
