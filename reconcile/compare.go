package reconcile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"greenroom/reconcile/plan"
	"greenroom/specs"
)

// withheld are settings whose values may be secrets: a plan tells that they differ, and not what they are.
func withheld(name string) bool {
	block, _, _ := strings.Cut(name, ".")
	return block == "user_data" || block == "variables" || name == "probe.exec.command"
}

// differences lists the settings in which two blocks differ, by name.
func differences(from, to map[string]string) (out []plan.Setting) {
	names := maps.Clone(from)
	maps.Copy(names, to)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if from[name] == to[name] {
			continue
		}
		s := plan.Setting{Name: name, From: from[name], To: to[name]}
		if name == "module" {
			s.From, s.To = withoutCredentials(s.From), withoutCredentials(s.To)
		}
		if withheld(name) || s.From == s.To {
			s.From, s.To = "", ""
		}
		out = append(out, s)
	}
	return out
}

var (
	userinfo  = regexp.MustCompile(`//[^/?#\s]*@`)
	parameter = regexp.MustCompile(`([?&]([^=&]*)=)[^&]*`)
)

// withoutCredentials is the source of a module for everybody. Who is named before the host may be a token, and so may any
// parameter that does not say which version it is.
func withoutCredentials(source string) string {
	source = userinfo.ReplaceAllStringFunc(source, func(name string) string {
		if name == "//git@" { // ssh, which has its keys elsewhere
			return name
		}
		return "//…@"
	})
	return parameter.ReplaceAllStringFunc(source, func(text string) string {
		part := parameter.FindStringSubmatch(text)
		if slices.Contains([]string{"ref", "depth", "archive", "checksum", "version"}, part[2]) {
			return text
		}
		return part[1] + "…"
	})
}

// settings are what a block declares, by names such as "lease.ttl" and "probe.http.port".
func settings(block any) map[string]string {
	var all map[string]json.RawMessage
	body, _ := json.Marshal(block) // numbers, strings and valid JSON: it cannot fail,
	_ = json.Unmarshal(body, &all) // and nor can this
	out := map[string]string{}
	for name, raw := range all {
		var probes []map[string]json.RawMessage
		switch {
		case name == "name", name == "invisible", name == "module_dir":
		case name == "probes" && json.Unmarshal(raw, &probes) == nil:
			for _, probe := range probes {
				kind := written(probe["kind"])
				delete(probe, "kind")
				spread(out, "probe."+kind, probe)
			}
		default:
			var object map[string]json.RawMessage
			if json.Unmarshal(raw, &object) != nil || object == nil {
				out[name] = written(raw)
			}
			spread(out, name, object)
		}
	}
	return out
}

func spread(out map[string]string, block string, object map[string]json.RawMessage) {
	for key, raw := range object {
		switch name := block + "." + key; name {
		case "brake.max_unhealthy", "guard.max_retire":
			var share float64
			_ = json.Unmarshal(raw, &share) // the specs have made it
			out[name] = percentOf(&specs.Guard{MaxRetire: share})
		case "prepare.path", "reset.path":
			out[block] = written(raw)
		default:
			out[name] = written(raw)
		}
	}
}

// written is a value about as the spec language writes it.
func written(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// comparePools says how each pool of base and head differs. What its guests are born of is looked at in the recipes, for
// the same path may hold another module.
func (pv *previewing) comparePools() []plan.Pool {
	names := map[string]bool{}
	for _, f := range []*specs.Fleet{pv.base.fleet, pv.head.fleet} {
		for _, p := range f.Pools {
			names[p.Name] = true
		}
	}
	for _, g := range pv.guests {
		names[g.Pool] = true
	}
	var out []plan.Pool
	for _, name := range slices.Sorted(maps.Keys(names)) {
		one := plan.Pool{Pool: name, Change: plan.Same, ReadySeconds: pv.ready[name].Seconds()}
		from, to := pv.base.fleet.Pool(name), pv.head.fleet.Pool(name)
		switch {
		case from == nil && to == nil: // it was removed before, and still has guests
		case from == nil:
			one.Change = plan.Added
		case to == nil:
			one.Change = plan.Removed
		default:
			one.Outdated = outdated(pv.base.recipes[name], pv.head.recipes[name])
			one.Settings = differences(settings(from), settings(to))
			if pv.base.recipes[name].Tree != pv.head.recipes[name].Tree {
				one.Settings = append(one.Settings, plan.Setting{Name: "module (its files)"})
			}
			if len(one.Settings) > 0 {
				one.Change = plan.Changed
			}
		}
		out = append(out, one)
	}
	return out
}

// outdated names what guests are born of and that differs.
func outdated(from, to recipe) (out []string) {
	if from.digest == "" || to.digest == "" || from.digest == to.digest {
		return nil
	}
	if from.Source != to.Source || from.Tree != to.Tree {
		out = append(out, "module")
	}
	if from.UserData != to.UserData {
		out = append(out, "user_data")
	}
	var a, b map[string]json.RawMessage
	_, _ = json.Unmarshal(from.Variables, &a), json.Unmarshal(to.Variables, &b) // the specs have made them
	names := maps.Clone(a)
	if names == nil {
		names = map[string]json.RawMessage{}
	}
	maps.Copy(names, b)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !bytes.Equal(a[name], b[name]) {
			out = append(out, "variables."+name)
		}
	}
	return out
}

func (pv *previewing) compareCaches() []plan.Cache {
	names := map[string]bool{}
	for _, f := range []*specs.Fleet{pv.base.fleet, pv.head.fleet} {
		for _, c := range f.AllCaches() {
			names[c.Name] = true
		}
	}
	for _, g := range pv.guests {
		names[g.Cache] = true
	}
	var out []plan.Cache
	for _, name := range slices.Sorted(maps.Keys(names)) {
		out = append(out, pv.compareCache(name, pv.base.fleet.Cache(name), pv.head.fleet.Cache(name)))
	}
	return out
}

func (pv *previewing) compareCache(name string, from, to *specs.Cache) plan.Cache {
	one := plan.Cache{Cache: name, Change: plan.Same}
	switch {
	case from == nil && to == nil: // it was removed before, and still has guests
		return one
	case to == nil:
		one.Change, one.Owner, one.Invisible = plan.Removed, from.Owner, from.Invisible
		return one
	case from == nil:
		one.Change = plan.Added
	case !to.Invisible: // of an invisible one the pool tells it
		one.Settings = differences(settings(from), settings(to))
		for what, bodies := range map[string][2][]byte{"prepare": {from.Prepare.Body, to.Prepare.Body}, "reset": {from.Reset.Body, to.Reset.Body}} {
			if !bytes.Equal(bodies[0], bodies[1]) {
				one.Settings = append(one.Settings, plan.Setting{Name: what + " (its text)"})
			}
		}
		slices.SortFunc(one.Settings, func(a, b plan.Setting) int { return strings.Compare(a.Name, b.Name) })
		if len(one.Settings) > 0 {
			one.Change = plan.Changed
		}
	}
	one.Owner, one.Invisible = to.Owner, to.Invisible
	return one
}

// breaches holds a plan against the guards of both revisions, so that no revision can lift the guard that it is past.
func (pv *previewing) breaches(p plan.Plan) (out []plan.Breach) {
	look := func(name string, guard *specs.Guard, retire, of int) {
		if guard == nil || float64(retire) <= guard.MaxRetire*float64(of) {
			return
		}
		b := plan.Breach{Guard: name, Retire: retire, Of: of, Allowed: guard.MaxRetire}
		if i := slices.IndexFunc(out, func(o plan.Breach) bool { return o.Guard == name }); i >= 0 {
			out[i].Allowed = min(out[i].Allowed, b.Allowed)
			return
		}
		out = append(out, b)
	}
	retire, of := map[string]int{}, map[string]int{}
	all := 0
	for _, g := range p.Guests {
		if g.State == "" {
			continue
		}
		of[g.Pool]++
		if g.Anyway {
			continue
		}
		if g.Verb == plan.Retire {
			all++
		}
		if g.Verb == plan.Retire || g.Verb == plan.Replace && g.ToPool != "" {
			retire[g.Pool]++
		}
	}
	for _, f := range []*specs.Fleet{pv.base.fleet, pv.head.fleet} {
		look("fleet", f.Guard, all, len(pv.guests))
		for _, pool := range f.Pools {
			look("pool."+pool.Name, pool.Guard, retire[pool.Name], of[pool.Name])
		}
	}
	return out
}

func percentOf(g *specs.Guard) string {
	if g == nil {
		return "none"
	}
	return fmt.Sprintf("%.4g%%", g.MaxRetire*100)
}
