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
type setting struct{ Name, Value string }

// poolSettings are those of a pool. Values of variables and the user data may be secrets: only what they are called is told.
func poolSettings(p *specs.Pool) []setting {
	var variables map[string]json.RawMessage
	_ = json.Unmarshal(p.Variables, &variables) // the specs have made it
	all := []setting{
		{"module", withoutPassword(p.Module)},
		{"max", plural(p.Max, "guest")},
		{"spare", plural(p.Spare, "guest")},
		{"shard_size", plural(p.ShardSize, "guest")},
		{"labels", pairs(p.Labels)},
		{"capacity", pairs(p.Capacity)},
		{"variables", told(slices.Sorted(maps.Keys(variables)))},
		{"user_data", given(p.UserData != "")},
	}
	for _, probe := range p.Probes {
		all = append(all, setting{"probe " + probe.Kind, probeText(probe)})
	}
	all = append(all,
		setting{"brake", "taints nothing while more than " + percent(p.Brake.MaxUnhealthy) + " look unhealthy"},
		setting{"rollout", plural(p.Rollout.MaxUnavailable, "guest") + " at most unavailable"},
		setting{"guard", guardText(p.Guard)})
	return all
}

// cacheSettings are those of a cache.
func cacheSettings(c *specs.Cache) []setting {
	return []setting{
		{"owner", cmp.Or(c.Owner, "anybody")},
		{"pools", strings.Join(c.Pools, ", ")},
		{"warm", plural(c.Warm, "guest")},
		{"size", plural(c.Size, "guest")},
		{"max", plural(c.Max, "guest")},
		{"enabled", map[bool]string{true: "yes", false: "no"}[c.Enabled]},
		{"lease", "for " + brief(c.Lease.TTL) + " from each heartbeat, " + brief(c.Lease.Max) + " at most"},
		{"reuse", reuseText(c.Reuse)},
		{"prepare", cmp.Or(c.Prepare.Path, "none")},
		{"reset", cmp.Or(c.Reset.Path, "none")},
		{"hold", plural(c.Hold.Max, "guest") + " for " + brief(c.Hold.For) + " at most"},
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
