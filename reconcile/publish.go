package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"greenroom/lease"
	"greenroom/reconcile/terraform"
)

// publish takes the outcome of a run into the inventory: what exists is booting, what does not is tried again or gone. Doing
// it twice is doing it once, because every step needs the run's own claim.
func (l *Loop) publish(ctx context.Context, r *terraform.Running, out terraform.Outcome) error {
	guests, err := l.o.Store.GuestsOf(ctx, r.Pool, r.Shard)
	if err != nil {
		return err
	}
	known := map[string]lease.Guest{}
	for _, g := range guests {
		known[g.Name] = g
		if g.Run != r.Run {
			continue
		}
		if err := l.publishGuest(ctx, g, r.Run, out); err != nil && !errors.Is(err, lease.ErrConflict) {
			return fmt.Errorf("guest %s: %w", g.Name, err)
		}
	}
	l.reportVanished(ctx, known, out)
	return l.reportStrangers(ctx, r, known, out)
}

func (l *Loop) publishGuest(ctx context.Context, g lease.Guest, run string, out terraform.Outcome) error {
	o, whole := out.Guests[g.Name]
	applied, exists := out.Incarnations[g.Name]
	certain := out.Incarnations != nil
	var err error
	switch {
	case g.State == lease.Provisioning && whole && applied == g.Incarnation:
		_, err = l.o.Store.Publish(ctx, g, run, g.Incarnation, machine(o))
	case g.State == lease.Replacing && whole && applied == g.Incarnation+1:
		_, err = l.o.Store.Publish(ctx, g, run, g.Incarnation+1, machine(o))
	case !certain || out.Torn && g.State != lease.Retiring && !l.tired(g): // nobody knows: the claim stays, and the next run finds out
	case g.State == lease.Provisioning && exists && unfinished(g.Name, out): // or goes on
	case g.State == lease.Retiring && !exists:
		err = l.o.Store.Remove(ctx, g, run, g.Reason)
	case g.State == lease.Provisioning && !exists:
		err = l.o.Store.Remove(ctx, g, run, "run_failed")
	case g.State == lease.Retiring || g.State == lease.Provisioning || g.State == lease.Replacing && !whole:
		_, err = l.o.Store.Fail(ctx, g, run, why(g.Name, out))
	case g.State == lease.Replacing: // nothing was done to it
		_, err = l.o.Store.Unclaim(ctx, g, run, why(g.Name, out))
	}
	return err
}

// maxTorn is after how many failures of a shard in a row its guests are given up that a run was making when it was killed: a provider
// that always hangs must not keep their slots for ever.
const maxTorn = 3

// tired tells that what the runs of a guest's shard were making when they were killed is given up, and says so: nobody may know of a machine.
func (l *Loop) tired(g lease.Guest) bool {
	l.mu.Lock()
	failures := l.shardLocked(g.Shard, g.Pool).failures
	l.mu.Unlock()
	if failures < maxTorn {
		return false
	}
	l.o.Log.Error("runs of a shard were killed again and again while they applied; a machine that no state knows may be left", "shard", g.Shard)
	return true
}

// unfinished tells that nothing is wrong with a guest but that others have failed before it was whole.
func unfinished(guest string, out terraform.Outcome) bool {
	return out.Err != nil && out.Err.Kind == terraform.FaultApply && len(out.Failed) > 0 && out.Failed[guest] == ""
}

func why(guest string, out terraform.Outcome) string {
	if text := out.Failed[guest]; text != "" {
		return text
	}
	if out.Err != nil {
		return out.Err.Error()
	}
	return "the run did not make it"
}

func machine(o terraform.Output) lease.Machine {
	attributes, _ := json.Marshal(o.Attributes) // raw JSON that was valid when it was read
	_, reset := o.Attributes["reset"]
	return lease.Machine{ID: o.ID, Host: o.Host, Port: o.Port, User: o.User, HostKey: o.HostKey, Attributes: attributes, Reset: reset}
}

// reportVanished tells the watchdog of guests that their provider took away, and of those that it has: it may have missed them the last
// time. Those claimed by the run are dealt with.
func (l *Loop) reportVanished(ctx context.Context, known map[string]lease.Guest, out terraform.Outcome) {
	var gone, there []lease.Guest
	looked := out.Err == nil || out.Err.Kind == terraform.FaultDrift
	for name, g := range known {
		_, exists := out.Incarnations[name]
		switch {
		case g.Run != "":
		case slices.Contains(out.Vanished, name):
			gone = append(gone, g)
		case looked && exists:
			there = append(there, g)
		}
	}
	if len(gone) > 0 {
		l.o.Vanished(ctx, gone, "terraform finds that its provider took it away (run "+out.Run+")")
	}
	if len(there) > 0 {
		l.o.Vanished(ctx, there, "")
	}
}

// reportStrangers puts guests on record that exist in the state and that the inventory does not know. They may be leased.
func (l *Loop) reportStrangers(ctx context.Context, r *terraform.Running, known map[string]lease.Guest, out terraform.Outcome) error {
	var strange []string
	for name := range out.Incarnations {
		if _, ok := known[name]; !ok {
			strange = append(strange, name)
		}
	}
	if len(strange) == 0 {
		return nil
	}
	l.o.Log.Warn("found guests that the inventory does not know", "shard", r.Shard, "guests", strings.Join(strange, " "))
	return l.quarantine(ctx, inventory{r.Shard, l.metaOf(r.Shard), out.Guests, out.Incarnations}, known)
}
