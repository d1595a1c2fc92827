package lease

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Signer signs lease tokens: proof of a lease for the day that the store is lost. The key is at least 32 bytes, secret, and
// outlives the store. HMAC-SHA256 (RFC 2104).
type Signer struct{ Key []byte }

// claims is what a token says.
type claims struct {
	Lease       string    `json:"l"`
	Holder      string    `json:"h"`
	Owner       string    `json:"o"`
	Guest       string    `json:"g"`
	Incarnation int       `json:"i"`
	TTL         int64     `json:"t"` // ms
	Granted     time.Time `json:"s"`
	Cap         time.Time `json:"c"`
}

// Sign returns the token of an active lease.
func (k Signer) Sign(l Lease) string {
	body, _ := json.Marshal(claims{l.ID, l.Holder, l.Owner, l.Guest, l.Incarnation, l.TTL.Milliseconds(), l.Granted, l.Cap})
	return base64.RawURLEncoding.EncodeToString(body) + "." + base64.RawURLEncoding.EncodeToString(k.mac(body))
}

func (k Signer) mac(body []byte) []byte {
	h := hmac.New(sha256.New, k.Key)
	h.Write(body)
	return h.Sum(nil)
}

func (k Signer) verify(token string) (claims, error) {
	var c claims
	head, tail, _ := strings.Cut(token, ".")
	body, err1 := base64.RawURLEncoding.DecodeString(head)
	sum, err2 := base64.RawURLEncoding.DecodeString(tail)
	if len(token) > 4096 || err1 != nil || err2 != nil || !hmac.Equal(sum, k.mac(body)) || json.Unmarshal(body, &c) != nil {
		return c, fmt.Errorf("%w: the lease token is not one of this server's", ErrInvalid)
	}
	return c, nil
}

// Restore renews a lease that the store has lost, by its token: the guest must be quarantined and of that incarnation.
// Errors: ErrInvalid, ErrNotYours, ErrOver, ErrConflict, ErrUnknownLease, ErrUnavailable.
func (s *Store) Restore(ctx context.Context, caller Caller, k Signer, id, token string) (Lease, error) {
	c, err := k.verify(token)
	if err != nil {
		return Lease{}, err
	}
	cache, err := CacheOf(id)
	if err != nil {
		return Lease{}, err
	}
	if c.Lease != id || !caller.May(c.Owner) {
		return Lease{}, fmt.Errorf("%w: the token belongs to another lease or owner", ErrNotYours)
	}
	reply, err := s.run(ctx, "restore", cache, id, c.Holder, c.Owner, c.Guest, c.Incarnation, c.TTL, c.Cap.UnixMilli(), c.Granted.UnixMilli())
	if err != nil {
		return Lease{}, err
	}
	l := parseLease(reply[1:], cache)
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
	_, err = s.run(ctx, "slot", g.Pool, 0, g.Cache, g.Slot, g.Incarnation)
	return err
}
