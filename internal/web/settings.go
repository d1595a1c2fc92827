package web

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"greenroom/specs"
)

// setting is one line of what a spec declares.
type setting struct {
	Name, Value string
	Pools       []string // in place of a value: they have pages
}

// poolSettings are those of a pool. Values of variables and the user data may be secrets: only what they are called is told.
func poolSettings(p *specs.Pool) []setting {
	var variables map[string]json.RawMessage
	_ = json.Unmarshal(p.Variables, &variables) // the specs have made it
	all := []setting{
		{Name: "module", Value: withoutPassword(p.Module)},
		{Name: "max", Value: plural(p.Max, "guest")},
		{Name: "spare", Value: plural(p.Spare, "guest")},
		{Name: "shard_size", Value: plural(p.ShardSize, "guest")},
		{Name: "labels", Value: pairs(p.Labels)},
		{Name: "capacity", Value: pairs(p.Capacity)},
		{Name: "variables", Value: told(slices.Sorted(maps.Keys(variables)))},
		{Name: "user_data", Value: given(p.UserData != "")},
	}
	for _, probe := range p.Probes {
		all = append(all, setting{Name: "probe " + probe.Kind, Value: probeText(probe)})
	}
	all = append(all,
		setting{Name: "brake", Value: "taints nothing while more than " + percent(p.Brake.MaxUnhealthy) + " look unhealthy"},
		setting{Name: "rollout", Value: plural(p.Rollout.MaxUnavailable, "guest") + " at most unavailable"},
		setting{Name: "guard", Value: guardText(p.Guard)})
	return all
}

// cacheSettings are those of a cache.
func cacheSettings(c *specs.Cache) []setting {
	return []setting{
		{Name: "owner", Value: cmp.Or(c.Owner, "anybody")},
		{Name: "pools", Pools: c.Pools},
		{Name: "warm", Value: plural(c.Warm, "guest")},
		{Name: "size", Value: plural(c.Size, "guest")},
		{Name: "max", Value: plural(c.Max, "guest")},
		{Name: "enabled", Value: map[bool]string{true: "yes", false: "no"}[c.Enabled]},
		{Name: "lease", Value: "for " + brief(c.Lease.TTL) + " from each heartbeat, " + brief(c.Lease.Max) + " at most"},
		{Name: "reuse", Value: reuseText(c.Reuse)},
		{Name: "prepare", Value: cmp.Or(c.Prepare.Path, "none")},
		{Name: "reset", Value: cmp.Or(c.Reset.Path, "none")},
		{Name: "hold", Value: plural(c.Hold.Max, "guest") + " for " + brief(c.Hold.For) + " at most"},
	}
}

func pairs[V any](m map[string]V) string {
	out := make([]string, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s = %v", key, m[key]))
	}
	return cmp.Or(strings.Join(out, ", "), "none")
}

func told(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ") + " (values are not told)"
}

func given(is bool) string {
	if is {
		return "given (not told)"
	}
	return "none"
}

func percent(share float64) string { return strconv.FormatFloat(100*share, 'g', 4, 64) + "%" }

func probeText(p specs.Probe) string {
	text := fmt.Sprintf("every %s, %s at most, dead after %s", brief(p.Every), brief(p.Timeout), plural(p.Failures, "failure"))
	if p.Port > 0 {
		text += fmt.Sprintf(", port %d", p.Port)
	}
	if p.Kind == specs.ProbeHTTP {
		text += ", path " + p.Path
	}
	if len(p.Command) > 0 {
		text += ", " + strings.Join(p.Command, " ")
	}
	return text
}

func guardText(g *specs.Guard) string {
	if g == nil {
		return "none"
	}
	return "holds a revision that retires more than " + percent(g.MaxRetire)
}

func reuseText(r specs.Reuse) string {
	var limits []string
	if r.Uses > 0 {
		limits = append(limits, plural(r.Uses, "use"))
	}
	if r.Age > 0 {
		limits = append(limits, brief(r.Age)+" of age")
	}
	return cmp.Or(strings.Join(limits, ", "), "without limit")
}

// brief writes a duration as the language does.
func brief(d time.Duration) string {
	text := d.String()
	if d%time.Minute == 0 {
		text = strings.TrimSuffix(text, "0s")
	}
	if d%time.Hour == 0 {
		text = strings.TrimSuffix(text, "0m")
	}
	return cmp.Or(text, "0s")
}

var userinfo = regexp.MustCompile(`//[^/?#\s]*@`)

// withoutPassword takes out of a module's source what may be credentials; git's own user is none.
func withoutPassword(source string) string {
	return userinfo.ReplaceAllStringFunc(source, func(match string) string {
		if match == "//git@" {
			return match
		}
		return "//…@"
	})
}
