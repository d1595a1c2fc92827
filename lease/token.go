package lease

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Signer signs lease tokens: proof of a lease for the day that the store is lost. HMAC-SHA256 (RFC 2104).
type Signer struct {
	seals sync.Pool // of *seal
}

// seal is what signing takes. To make one takes longer than to use it.
type seal struct {
	hash.Hash
	body, sum, text []byte
}

// NewSigner returns a signer. The key is at least 32 bytes, secret, and outlives the store.
func NewSigner(key []byte) *Signer {
	return &Signer{seals: sync.Pool{New: func() any { return &seal{Hash: hmac.New(sha256.New, key)} }}}
}

// claims is what a token says: the id of the lease, its holder, owner and guest, incarnation, TTL, grant and cap, a line each.
const claims = 8

// Sign returns the token of an active lease.
func (k *Signer) Sign(l Lease) string {
	seal, _ := k.seals.Get().(*seal)
	defer k.seals.Put(seal)
	body := lines(seal.body[:0]).line(l.ID).line(l.Holder).line(l.Owner).line(l.Guest).number(int64(l.Incarnation)).number(l.TTL.Milliseconds()).number(millis(l.Granted))
	seal.body = strconv.AppendInt(body, millis(l.Cap), 10)
	text := append(base64.RawURLEncoding.AppendEncode(seal.text[:0], seal.body), '.')
	seal.text = base64.RawURLEncoding.AppendEncode(text, seal.of(seal.body))
	return string(seal.text)
}

// of is good until the next one.
func (s *seal) of(body []byte) []byte {
	s.Reset()
	s.Write(body)
	s.sum = s.Sum(s.sum[:0])
	return s.sum
}

// verify returns the lease of a token of this signer's.
func (k *Signer) verify(token string) (Lease, error) {
	head, tail, _ := strings.Cut(token, ".")
	seal, _ := k.seals.Get().(*seal)
	defer k.seals.Put(seal)
	body, err1 := base64.RawURLEncoding.DecodeString(head)
	sum, err2 := base64.RawURLEncoding.DecodeString(tail)
	f := strings.Split(string(body), "\n")
	if len(token) > 4096 || err1 != nil || err2 != nil || !hmac.Equal(sum, seal.of(body)) || len(f) != claims {
		return Lease{}, fmt.Errorf("%w: the lease token is not one of this server's", ErrInvalid)
	}
	return Lease{
		ID: f[0], Holder: unescape(f[1]), Owner: unescape(f[2]), Guest: f[3], Incarnation: int(number(f[4])), TTL: time.Duration(number(f[5])) * time.Millisecond,
		Granted: ms(f[6]), Cap: ms(f[7]),
	}, nil
}

// Restore renews a lease that the store has lost, by its token: the guest must be quarantined and of that incarnation, or have come
// back to the holder of an older token, whose lease ends.
// Errors: ErrInvalid, ErrNotYours, ErrOver, ErrConflict, ErrUnknownLease, ErrUnavailable.
func (s *Store) Restore(ctx context.Context, caller Caller, k *Signer, id, token string) (Lease, error) {
	c, err := k.verify(token)
	if err != nil {
		return Lease{}, err
	}
	cache, err := CacheOf(id)
	if err != nil {
		return Lease{}, err
	}
	if c.ID != id || !caller.May(c.Owner) {
		return Lease{}, fmt.Errorf("%w: the token belongs to another lease or owner", ErrNotYours)
	}
	reply, err := s.onRecord(ctx, cache, &call{name: "restore", args: []any{
		id, escape(c.Holder), escape(c.Owner), c.Guest, c.Incarnation, c.TTL.Milliseconds(), c.Cap.UnixMilli(), c.Granted.UnixMilli(),
	}})
	if err != nil {
		return Lease{}, err
	}
	l := parseLease(reply[1:], cache)
	if older := text(reply[3]); older != "" {
		s.announce(ctx, cache, older)
	}
	s.tell(Change{Kind: GuestMoved, Cache: cache, Guest: l.Guest, State: Leased})
	return l, nil
}

// Found puts a guest on record that exists but that a lost store knew: quarantined until nobody can hold it any more.
func (s *Store) Found(ctx context.Context, g Guest, m Machine, until time.Time) error {
	if err := s.remember(ctx, "pools", g.Pool); err != nil {
		return err
	}
	if err := s.remember(ctx, "caches", g.Cache); err != nil {
		return err
	}
	switch known, err := s.cacheOf(ctx, g.Pool, g.Slot); {
	case err != nil:
		return err
	case known != "" && known != g.Cache:
		return fmt.Errorf("guest %s: %w: it is on record in cache %s", g.Name, ErrConflict, known)
	}
	g.State, g.Until, g.Reason = Quarantined, until, "store_lost"
	_, _, err := s.create(ctx, g, 0, "id", m.ID, "address", addressOf(m.Host, m.Port, m.User, m.HostKey),
		"attributes", string(m.Attributes), "reset", flag(m.Reset), "born", time.Now().UnixMilli())
	if err != nil {
		return err
	}
	// The slot comes last: a slot without a guest would be mended away in between.
	_, err = s.run(ctx, "slot", g.Pool, 0, g.Cache, g.Slot, g.Incarnation, g.Shard)
	return err
}
