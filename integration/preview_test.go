package integration

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/modules"
	"greenroom/reconcile/plan"
)

// block is one pool or cache of a spec: its attributes by name, as HCL.
type block map[string]string

// blocks is a spec by "pool a", "cache ci" and so on, which is easy to edit.
type blocks map[string]block

func (b blocks) String() string {
	var text strings.Builder
	text.WriteString("# the fleet\n")
	for _, name := range slices.Sorted(maps.Keys(b)) {
		kind, label, _ := strings.Cut(name, " ")
		fmt.Fprintf(&text, "\n%s %q {\n", kind, label)
		for _, attr := range slices.Sorted(maps.Keys(b[name])) {
			fmt.Fprintf(&text, "  %s = %s\n", attr, b[name][attr])
		}
		text.WriteString("}\n")
	}
	return text.String()
}

func (b blocks) with(edit func(blocks)) blocks {
	out := blocks{}
	for name, attrs := range b {
		out[name] = maps.Clone(attrs)
	}
	edit(out)
	return out
}

// room puts a module with an image into the specs: the bundled one with one more variable.
func (h *house) room() {
	h.Helper()
	tree, _ := modules.Lookup("local")
	noError(h, fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		body, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		to := h.path(filepath.Join("specs/modules/room", name))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		return os.WriteFile(to, body, 0o600)
	}))
	h.moduleFile("image.tf", "variable \"image\" {\n  type    = string\n  default = \"one\"\n}\n")
}

func (h *house) moduleFile(name, text string) {
	h.Helper()
	noError(h, os.WriteFile(h.path("module.new"), []byte(text), 0o600))
	noError(h, os.Rename(h.path("module.new"), h.path("specs/modules/room/"+name)))
}

// preview makes a plan of a spec in a copy of the spec directory, by the command, and checks its exit code.
func (h *house) preview(spec blocks, edit func(dir string)) plan.Plan {
	h.Helper()
	next := h.path("next")
	noError(h, os.RemoveAll(next))
	noError(h, os.CopyFS(next, os.DirFS(h.path("specs"))))
	noError(h, os.WriteFile(filepath.Join(next, "fleet.hcl"), []byte(spec.String()), 0o600))
	if edit != nil {
		edit(next)
	}
	stdout, stderr, code := h.cli("plan", next, "-o", "json")
	var p plan.Plan
	if err := json.Unmarshal([]byte(stdout), &p); err != nil {
		h.Fatalf("plan: exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if want := map[bool]int{false: 0, true: 2}[p.Summary.Changes()]; code != want || p.Phase != plan.Ready {
		h.Fatalf("plan: exit code %d, want %d; %s %s: %s", code, want, p.Phase, p.Error, stderr)
	}
	return p
}

// reality is what happened to the guests between two looks.
type reality struct {
	Gone []string          // by name and incarnation
	Came map[[2]string]int // by cache and pool
}

func between(before, after map[string]lease.Guest) reality {
	r := reality{Came: map[[2]string]int{}}
	there := map[string]bool{}
	for _, g := range after {
		there[g.Principal()] = true
	}
	for _, g := range before {
		if !there[g.Principal()] {
			r.Gone = append(r.Gone, g.Principal())
		}
		delete(there, g.Principal())
	}
	for _, g := range after {
		if there[g.Principal()] {
			r.Came[[2]string{g.Cache, g.Pool}]++
		}
	}
	slices.Sort(r.Gone)
	return r
}

// said is what a plan says of one act. Where only the number of those that go is known, the names are taken from reality.
func said(p plan.Plan, when string, happened reality) reality {
	r := reality{Came: map[[2]string]int{}}
	some := map[string]int{}
	for _, g := range p.Guests {
		if g.When != when || g.Verb == plan.Keep {
			continue
		}
		pool := g.Pool
		if g.ToPool != "" {
			pool = g.ToPool
		}
		if g.Verb != plan.Retire {
			r.Came[[2]string{g.Cache, pool}]++
		}
		switch {
		case g.State == "":
		case g.OneOf:
			some[g.Pool]++
		default:
			r.Gone = append(r.Gone, fmt.Sprintf("%s.%d", g.Guest, g.Incarnation))
		}
	}
	for _, name := range happened.Gone {
		pool := name[:strings.LastIndexByte(name, '-')]
		if some[pool] > 0 && !slices.Contains(r.Gone, name) {
			some[pool]--
			r.Gone = append(r.Gone, name)
		}
	}
	slices.Sort(r.Gone)
	return r
}

// resources counts by action what Terraform said it would do to guests.
func resources(p plan.Plan, t *testing.T) map[string]int {
	t.Helper()
	counts := map[string]int{}
	if p.Terraform == nil {
		t.Fatal("an admin's plan has no Terraform layer")
	}
	for _, s := range p.Terraform.Shards {
		if s.Error != "" {
			t.Errorf("shard %s: %s", s.Shard, s.Error)
		}
		for _, r := range s.Resources {
			counts[r.Action+" "+r.Guest]++
		}
	}
	return counts
}

// Each change is previewed, then made, and what happened is compared with what was said: at once, with leases going on, and
// after they have ended. The changes build on one another, as those of a real fleet do.
func TestWhatAPreviewSaysIsWhatHappens(t *testing.T) {
	h := newHouse(t, options{})
	h.room()
	spec := blocks{
		"pool a":   {"module": `"./modules/room"`, "max": "8", "variables": `{ image = "one" }`},
		"pool b":   {"module": `"local"`, "max": "6"},
		"cache ci": {"owner": `"platform"`, "pools": "[pool.a]", "warm": "2", "size": "4", "max": "6"},
	}
	h.write(spec)
	h.start()
	h.converged()
	for _, change := range []struct {
		name   string
		leases int
		edit   func(blocks)
		files  func(dir string) // beside the spec
		want   string           // the summary, as a person would expect it
	}{
		{"nothing", 0, func(blocks) {}, nil, "2 kept"},
		{"grow", 0, func(b blocks) { b["cache ci"]["warm"] = "4" }, nil, "2 to create, 2 kept, 1 setting changed"},
		{"shrink", 0, func(b blocks) { b["cache ci"]["warm"], b["cache ci"]["size"] = "2", "2" }, nil, "2 to retire, 2 kept, 2 settings changed"},
		{"a longer shelf", 1, func(b blocks) { b["cache ci"]["size"] = "4" }, nil, "3 kept, 1 setting changed"},
		{"labels only", 1, func(b blocks) { b["pool a"]["labels"] = `{ os = "debian" }` }, nil, "3 kept, 1 setting changed"},
		{"variables, and so another image", 1, func(b blocks) { b["pool a"]["variables"] = `{ image = "two" }` }, nil, "2 to replace, 1 to retire when released, 1 setting changed"},
		{"module edit", 0, func(blocks) {}, func(dir string) {
			noError(t, os.WriteFile(filepath.Join(dir, "modules/room/image.tf"), []byte("# edited\nvariable \"image\" {}\n"), 0o600))
		}, "2 to replace, 1 setting changed"},
		{"bootstrap", 2, func(b blocks) { b["pool a"]["user_data"] = `"hello"` }, nil, "2 to replace, 2 to retire when released, 1 setting changed"},
		{"new pool", 1, func(b blocks) { b["pool c"] = block{"module": `"local"`, "max": "2", "spare": "1"} }, nil, "1 to create, 3 kept, 1 setting changed"},
		{"cache moved to another pool", 1, func(b blocks) { b["cache ci"]["pools"] = "[pool.b]" }, nil, "2 to replace, 1 to retire when released, 1 kept, 1 setting changed"},
		{"size under the leased count", 3, func(b blocks) { b["cache ci"]["warm"], b["cache ci"]["size"] = "0", "1" }, nil, "1 to retire, 2 to retire when released, 2 kept, 2 settings changed"},
		{"disabled cache", 0, func(b blocks) { b["cache ci"]["enabled"] = "false" }, nil, "2 kept, 1 setting changed"},
		{"enabled again, and warm", 0, func(b blocks) {
			b["cache ci"]["enabled"], b["cache ci"]["warm"], b["cache ci"]["size"] = "true", "2", "4"
		}, nil, "1 to create, 2 kept, 3 settings changed"},
		{"removed pool with leases", 2, func(b blocks) {
			delete(b, "pool b")
			b["cache ci"]["pools"], b["cache ci"]["warm"], b["cache ci"]["size"], b["cache ci"]["max"] = "[pool.c]", "1", "1", "1"
		}, nil, "1 to create, 2 to retire, 2 to retire when released, 1 kept, 5 settings changed"},
		{"everything removed", 1, func(b blocks) { clear(b) }, nil, "1 to retire, 1 to retire when released, 3 settings changed"},
	} {
		if !t.Run(change.name, func(t *testing.T) { //nolint:paralleltest // each begins where the one before has ended
			var leases []client.Lease
			for range change.leases {
				leases = append(leases, h.acquire())
			}
			h.until("what the leases have caused is done", func() error {
				p := h.preview(spec, nil)
				if i := slices.IndexFunc(p.Guests, func(g plan.Guest) bool { return g.When == plan.Now }); i >= 0 {
					return fmt.Errorf("%+v", p.Guests[i])
				}
				return h.settled(must(h.api.Status(t.Context()))(h))
			})
			before := h.guests()
			spec = spec.with(change.edit)
			p := h.preview(spec, change.files)
			if got := p.Summary.String(); got != change.want {
				t.Errorf("it says %q, want %q", got, change.want)
			}
			tf := resources(p, t)
			if change.files != nil {
				change.files(h.path("specs"))
			}
			h.write(spec)
			during := h.comesTrue(p, plan.Now, before)
			happened := between(before, during)
			for _, name := range happened.Gone {
				if guest := name[:strings.LastIndexByte(name, '.')]; tf["delete "+guest]+tf["replace "+guest] == 0 {
					t.Errorf("%s has gone, and Terraform's plan does not say so: %v", name, tf)
				}
			}
			for _, l := range leases {
				h.release(l.ID)
			}
			h.comesTrue(p, plan.Released, during)
		}) {
			t.FailNow()
		}
	}
}

// comesTrue waits until what a plan says of one act has happened to the guests that were there before it, and nothing else
// is to come.
func (h *house) comesTrue(p plan.Plan, when string, before map[string]lease.Guest) (after map[string]lease.Guest) {
	h.Helper()
	for range 2 { // what comes true must stay true
		h.until(fmt.Sprintf("what the plan says of %s (%s) has happened", when, p.Summary), func() error {
			after = h.guests()
			happened := between(before, after)
			if diff := cmp.Diff(said(p, when, happened), happened); diff != "" {
				return fmt.Errorf("(- said, + happened):\n%s", diff)
			}
			return nil
		})
		h.quiet(p)
	}
	return after
}

// quiet waits until the fleet of a plan is in force and nothing is left to do.
func (h *house) quiet(p plan.Plan) {
	h.Helper()
	h.until("nothing is left to do", func() error {
		st, err := h.api.Status(h.Context())
		if err != nil {
			return err
		}
		if st.Revision == p.Base && p.Base != h.revision {
			return fmt.Errorf("revision %s is still in force", st.Revision)
		}
		h.pools = len(st.Pools)
		return h.settled(st)
	})
}
