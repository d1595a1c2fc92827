package specs

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/hcl/v2"
	"pgregory.net/rapid"

	"greenroom/specs/examples"
)

// unplaced ignores where a block stands and what the revision is called.
var unplaced = cmp.Options{
	cmpopts.IgnoreTypes(hcl.Range{}),
	cmpopts.IgnoreFields(Fleet{}, "Revision"),
}

func mustLoad(t interface {
	Helper()
	Fatalf(string, ...any)
}, fsys fs.FS,
) *Fleet {
	t.Helper()
	fleet, files, diags := LoadFS(fsys, "/fleet", bundled)
	if diags.HasErrors() {
		var text strings.Builder
		_ = WriteDiagnostics(&text, files, diags, false, 0)
		t.Fatalf("the spec is faulty:\n%s", text.String())
	}
	return fleet
}

func spec(src string) fstest.MapFS { return fstest.MapFS{"fleet.hcl": {Data: []byte(src)}} }

func TestTheSmallestFleetHasEveryDefault(t *testing.T) {
	got := mustLoad(t, spec(`
		pool "a" {
		  module = "local"
		  max    = 4
		}
		cache "c" {
		  pools = [pool.a]
		}`))
	want := &Fleet{
		Dir: "/fleet",
		Pools: []*Pool{{
			Name: "a", Module: "local", Max: 4, ShardSize: 25,
			Labels: map[string]string{}, Capacity: map[string]float64{}, Variables: json.RawMessage("{}"),
			Probes:  []Probe{{Kind: "ssh", Every: 10 * time.Second, Timeout: 3 * time.Second, Failures: 3}},
			Brake:   Brake{MaxUnhealthy: 0.4},
			Rollout: Rollout{MaxUnavailable: 1},
		}},
		Caches: []*Cache{{
			Name: "c", Pools: []string{"a"}, Size: 4, Max: 4, Enabled: true,
			Lease: Lease{TTL: 30 * time.Minute, Max: 4 * time.Hour},
			Hold:  Hold{For: 24 * time.Hour, Max: 2},
		}},
	}
	if diff := cmp.Diff(want, got, unplaced); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// everything uses each attribute and block of the language once.
var everything = []string{
	`guard {
	  max_retire = "${local.sizes.size}0%"
	}`,
	`locals {
	  team  = "platform"
	  sizes = { warm = 2, size = local.double * 2 }
	}`,
	`locals {
	  double = 2
	}`,
	`pool "linux" {
	  module     = "./modules/vm"
	  max        = cache.ci.max
	  spare      = 1
	  shard_size = 10
	  labels     = { os = "debian-12", team = upper(local.team) }
	  capacity   = { cpus = 2, memory = 0.5 }
	  variables  = { nested = { list = [1, true, null] }, "image" = "debian" }
	  user_data  = file("user-data.sh")
	  probe "tcp" {
	    port = 8080
	  }
	  probe "http" {
	    every    = "2s"
	    failures = 1
	    port     = 80
	    path     = "/healthz"
	  }
	  probe "exec" {
	    timeout = "1500ms"
	    command = ["true", "yes"]
	  }
	  brake {
	    max_unhealthy = "12.5%"
	  }
	  rollout {
	    max_unavailable = 3
	  }
	  guard {
	    max_retire = "0%"
	  }
	}`,
	`pool "metal" {
	  module = "git::https://example.com/metal.git?ref=v1"
	  max    = pool.linux.shard_size
	}`,
	`cache "ci" {
	  owner   = local.team
	  pools   = [pool.linux, pool["metal"]]
	  warm    = local.sizes.warm
	  size    = local.sizes["size"]
	  max     = 6
	  enabled = false
	  prepare = "prepare.sh"
	  reset   = "./reset.sh"
	  lease {
	    ttl = "5s"
	    max = "90m"
	  }
	  reuse {
	    uses = 50
	    age  = "36h"
	  }
	  hold {
	    for = "45m"
	    max = 0
	  }
	}`,
	`cache "all" {
	  pools = values(pool)
	  lease {
	    max = "10m"
	  }
	}`,
}

func everythingFS() fstest.MapFS {
	return fstest.MapFS{
		"user-data.sh":        {Data: []byte("echo ${HOME}\n")},
		"prepare.sh":          {Data: []byte("prepare\n")},
		"reset.sh":            {Data: []byte("reset\n")},
		"modules/vm/main.tf":  {},
		"modules/ignored.hcl": {Data: []byte("not read")},
		".ignored.hcl":        {Data: []byte("not read")},
	}
}

func TestEveryAttributeIsRead(t *testing.T) {
	fsys := everythingFS()
	fsys["fleet.hcl"] = &fstest.MapFile{Data: []byte(strings.Join(everything, "\n"))}
	got := mustLoad(t, fsys)
	ssh := []Probe{{Kind: "ssh", Every: 10 * time.Second, Timeout: 3 * time.Second, Failures: 3}}
	want := &Fleet{
		Dir:   "/fleet",
		Guard: &Guard{MaxRetire: 0.4},
		Pools: []*Pool{
			{
				Name: "linux", Module: "./modules/vm", ModuleDir: "/fleet/modules/vm", Max: 6, Spare: 1, ShardSize: 10,
				Labels:    map[string]string{"os": "debian-12", "team": "PLATFORM"},
				Capacity:  map[string]float64{"cpus": 2, "memory": 0.5},
				Variables: json.RawMessage(`{"image":"debian","nested":{"list":[1,true,null]}}`),
				UserData:  "echo ${HOME}\n",
				Probes: []Probe{
					{Kind: "tcp", Every: 10 * time.Second, Timeout: 3 * time.Second, Failures: 3, Port: 8080},
					{Kind: "http", Every: 2 * time.Second, Timeout: 2 * time.Second, Failures: 1, Port: 80, Path: "/healthz"},
					{Kind: "exec", Every: 10 * time.Second, Timeout: 1500 * time.Millisecond, Failures: 3, Command: []string{"true", "yes"}},
				},
				Brake:   Brake{MaxUnhealthy: 0.125},
				Rollout: Rollout{MaxUnavailable: 3},
				Guard:   &Guard{},
			},
			{
				Name: "metal", Module: "git::https://example.com/metal.git?ref=v1", Max: 10, ShardSize: 25,
				Labels: map[string]string{}, Capacity: map[string]float64{}, Variables: json.RawMessage("{}"),
				Probes: ssh, Brake: Brake{MaxUnhealthy: 0.4}, Rollout: Rollout{MaxUnavailable: 1},
			},
		},
		Caches: []*Cache{
			{
				Name: "all", Pools: []string{"linux", "metal"}, Size: 16, Max: 16, Enabled: true,
				Lease: Lease{TTL: 10 * time.Minute, Max: 10 * time.Minute}, Hold: Hold{For: 24 * time.Hour, Max: 2},
			},
			{
				Name: "ci", Owner: "platform", Pools: []string{"linux", "metal"}, Warm: 2, Size: 4, Max: 6,
				Lease: Lease{TTL: 5 * time.Second, Max: 90 * time.Minute}, Reuse: Reuse{Uses: 50, Age: 36 * time.Hour},
				Prepare: Script{Path: "prepare.sh", Body: []byte("prepare\n")}, Reset: Script{Path: "./reset.sh", Body: []byte("reset\n")},
				Hold: Hold{For: 45 * time.Minute},
			},
		},
	}
	if diff := cmp.Diff(want, got, unplaced); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestAFleetThatIsWrittenOutReadsAsTheSameFleet(t *testing.T) {
	fsys := everythingFS()
	fsys["fleet.hcl"] = &fstest.MapFile{Data: []byte(strings.Join(everything, "\n"))}
	want := mustLoad(t, fsys)
	fsys["fleet.hcl"] = &fstest.MapFile{Data: want.HCL()}
	if diff := cmp.Diff(want, mustLoad(t, fsys), unplaced); diff != "" {
		t.Errorf("-want +got:\n%s\nfrom:\n%s", diff, want.HCL())
	}
}

// scatter puts the blocks into files in any order.
func scatter(t *rapid.T, fsys fstest.MapFS, blocks []string) {
	for _, b := range rapid.Permutation(blocks).Draw(t, "order") {
		name := fmt.Sprintf("%d.hcl", rapid.IntRange(1, 4).Draw(t, "file"))
		if fsys[name] == nil {
			fsys[name] = &fstest.MapFile{}
		}
		fsys[name].Data = append(fsys[name].Data, b+"\n"...)
	}
}

func TestBlockOrderAndFileSplitNeverMatter(t *testing.T) {
	fsys := everythingFS()
	fsys["fleet.hcl"] = &fstest.MapFile{Data: []byte(strings.Join(everything, "\n"))}
	want := mustLoad(t, fsys)
	rapid.Check(t, func(t *rapid.T) {
		fsys := everythingFS()
		scatter(t, fsys, everything)
		if diff := cmp.Diff(want, mustLoad(t, fsys), unplaced); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
	})
}

func TestBlockOrderAndFileSplitChangeNoFault(t *testing.T) {
	blocks := []string{
		`locals {
		  a = local.b
		}`,
		`locals {
		  b = cache.two.max
		}`,
		`cache "two" {
		  pools = [pool.linux]
		  max   = local.a
		  warm  = -1
		}`,
		`cache "one" {
		  pools = [pool.linus]
		  size  = local.nowhere
		  warm  = "many"
		}`,
		`pool "linux" {
		  module = "local"
		  max    = 3
		  spare  = 4
		}`,
	}
	faults := func(fsys fs.FS) (found []string) {
		_, _, diags := LoadFS(fsys, "", bundled)
		for _, d := range diags {
			found = append(found, d.Summary+": "+d.Detail)
		}
		slices.Sort(found)
		return found
	}
	want := faults(spec(strings.Join(blocks, "\n")))
	if len(want) != 6 {
		t.Fatalf("want 6 faults, got %d:\n%s", len(want), strings.Join(want, "\n"))
	}
	rapid.Check(t, func(t *rapid.T) {
		fsys := fstest.MapFS{}
		scatter(t, fsys, blocks)
		if diff := cmp.Diff(want, faults(fsys)); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
	})
}

func TestEachPoolHasAnInvisibleCacheOfItsName(t *testing.T) {
	fleet := mustLoad(t, spec(`
		pool "b" {
		  module = "local"
		  max    = 4
		  spare  = 2
		}
		cache "a" {
		  pools = [pool.b]
		}
		cache "c" {
		  pools = [pool.b]
		}`))
	invisible := &Cache{
		Name: "b", Pools: []string{"b"}, Warm: 2, Size: 2, Max: 4, Enabled: true, Invisible: true,
		Lease: Lease{TTL: 30 * time.Minute, Max: 4 * time.Hour}, Reuse: Reuse{Uses: 1}, Hold: Hold{For: 24 * time.Hour, Max: 2},
	}
	if diff := cmp.Diff(invisible, fleet.Cache("b"), unplaced); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]*Cache{fleet.Cache("a"), invisible, fleet.Cache("c")}, fleet.AllCaches(), unplaced); diff != "" {
		t.Errorf("all caches, -want +got:\n%s", diff)
	}
	if c, p := fleet.Cache("d"), fleet.Pool("d"); c != nil || p != nil {
		t.Errorf("an unknown name gave the cache %v and the pool %v", c, p)
	}
}

func TestEligiblePoolsSatisfyEveryLabelAndCapacity(t *testing.T) {
	fleet := &Fleet{Pools: []*Pool{
		{Name: "big", Labels: map[string]string{"os": "linux", "gpu": "yes"}, Capacity: map[string]float64{"cpus": 8, "memory": 64}},
		{Name: "small", Labels: map[string]string{"os": "linux"}, Capacity: map[string]float64{"cpus": 2}},
	}}
	cache := &Cache{Pools: []string{"small", "big"}}
	for name, test := range map[string]struct {
		labels  map[string]string
		atLeast map[string]float64
		want    []string
	}{
		"no demand takes all in order of preference":     {want: []string{"small", "big"}},
		"a label that both have":                         {labels: map[string]string{"os": "linux"}, want: []string{"small", "big"}},
		"a label that one has":                           {labels: map[string]string{"os": "linux", "gpu": "yes"}, want: []string{"big"}},
		"a label with another value":                     {labels: map[string]string{"os": "windows"}},
		"an empty value is not a missing label":          {labels: map[string]string{"zone": ""}},
		"at least is met by equal and more":              {atLeast: map[string]float64{"cpus": 2}, want: []string{"small", "big"}},
		"a capacity that one has enough of":              {atLeast: map[string]float64{"cpus": 2.5}, want: []string{"big"}},
		"a capacity that is not declared satisfies none": {atLeast: map[string]float64{"memory": 0}, want: []string{"big"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, fleet.Eligible(cache, test.labels, test.atLeast)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestTheRevisionFollowsSpecsAndScripts(t *testing.T) {
	load := func(change func(fstest.MapFS)) string {
		fsys := everythingFS()
		fsys["fleet.hcl"] = &fstest.MapFile{Data: []byte(strings.Join(everything, "\n"))}
		change(fsys)
		return mustLoad(t, fsys).Revision
	}
	base := load(func(fstest.MapFS) {})
	if again := load(func(m fstest.MapFS) { m["README"] = &fstest.MapFile{} }); again != base {
		t.Errorf("a file that is not read changed the revision from %s to %s", base, again)
	}
	seen := map[string]string{base: "nothing"}
	for name, change := range map[string]func(fstest.MapFS){
		"a comment":          func(m fstest.MapFS) { m["fleet.hcl"].Data = append(m["fleet.hcl"].Data, "# more"...) },
		"a script":           func(m fstest.MapFS) { m["reset.sh"].Data = []byte("reset more") },
		"a file of file()":   func(m fstest.MapFS) { m["user-data.sh"].Data = []byte("other") },
		"a name":             func(m fstest.MapFS) { m["renamed.hcl"] = m["fleet.hcl"]; delete(m, "fleet.hcl") },
		"another empty file": func(m fstest.MapFS) { m["empty.hcl"] = &fstest.MapFile{} },
	} {
		got := load(change)
		if other, ok := seen[got]; ok {
			t.Errorf("changing %s gave the revision of changing %s: %s", name, other, got)
		}
		seen[got] = name
	}
}

func TestFilesAreReadThroughLinksThatStayInside(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "versions", "1"), onePool)
	if err := os.Symlink(filepath.Join("versions", "1"), filepath.Join(dir, "fleet.hcl")); err != nil {
		t.Fatal(err)
	}
	fleet, _, diags := Load(dir, bundled)
	if diags.HasErrors() || fleet.Pool("a") == nil {
		t.Fatalf("got %v and %v", fleet, diags)
	}
	if fleet.Dir != dir {
		t.Errorf("the fleet is from %q, want %q", fleet.Dir, dir)
	}
}

func TestAnyBundledNameIsAcceptedWhenNoneAreGiven(t *testing.T) {
	if _, _, diags := LoadFS(spec(strings.ReplaceAll(onePool, "local", "other")), "", Options{}); diags.HasErrors() {
		t.Error(diags)
	}
}

func TestModuleSourcesAreKeptAsWritten(t *testing.T) {
	outside := t.TempDir()
	writeFile(t, filepath.Join(outside, "main.tf"), "")
	for source, wantDir := range map[string]string{
		"local": "",
		"git::ssh://git@example.com/modules.git//vm?ref=v1.2.0": "",
		"terraform-aws-modules/ec2-instance/aws":                "",
		"registry.example.com/team/vm/libvirt":                  "",
		"./modules/vm":                                          "/fleet/modules/vm",
		"./modules/../modules/vm/":                              "/fleet/modules/vm",
		outside:                                                 outside,
	} {
		t.Run(source, func(t *testing.T) {
			fsys := everythingFS()
			fsys["fleet.hcl"] = &fstest.MapFile{Data: []byte(strings.ReplaceAll(onePool, "local", source))}
			p := mustLoad(t, fsys).Pool("a")
			if p.Module != source || p.ModuleDir != wantDir {
				t.Errorf("got the module %q at %q, want it at %q", p.Module, p.ModuleDir, wantDir)
			}
		})
	}
}

// TestAGuardThatLetsNothingRetireSurvivesGob matters because gob leaves out what is zero, and no guard at all
// is the very opposite.
func TestAGuardThatLetsNothingRetireSurvivesGob(t *testing.T) {
	want := mustLoad(t, spec("guard {\n  max_retire = \"0%\"\n}\n"+onePool+strings.Replace(onePool, "\"a\" {", "\"b\" {\n  guard {\n    max_retire = \"0%\"\n  }", 1)))
	var kept bytes.Buffer
	if err := gob.NewEncoder(&kept).Encode(want); err != nil {
		t.Fatal(err)
	}
	got := &Fleet{}
	if err := gob.NewDecoder(&kept).Decode(got); err != nil {
		t.Fatal(err)
	}
	guards := []*Guard{got.Guard, got.Pool("a").Guard, got.Pool("b").Guard}
	if diff := cmp.Diff([]*Guard{{}, nil, {}}, guards); diff != "" {
		t.Errorf("the guards of the fleet, a and b, -want +got:\n%s", diff)
	}
}

func TestOnlyTheModuleDirectoriesThatAreAllowedAreLookedAt(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "main.tf"), "")
	for source, allowed := range map[string]bool{
		dir:                               true,
		dir + "/../" + filepath.Base(dir): true,
		filepath.Dir(dir):                 false,
		dir + "/nowhere":                  false,
		"git::https://example.com/x.git":  true,
		"namespace/name/provider":         true,
	} {
		_, _, diags := LoadFS(spec(strings.ReplaceAll(onePool, "local", source)), "/fleet", Options{Absolute: []string{dir}})
		if allowed == diags.HasErrors() || !allowed && diags[0].Summary != sumModuleNotAllowed {
			t.Errorf("%s is allowed: %v, but reading it gave %v", source, allowed, diags)
		}
	}
}

func TestAnEmptyFileIsAnEmptyFleet(t *testing.T) {
	if fleet := mustLoad(t, spec("")); len(fleet.Pools)+len(fleet.Caches) != 0 {
		t.Errorf("got %+v", fleet)
	}
}

func TestTheExamplesAreValidAndLaidOut(t *testing.T) {
	entries, err := examples.FS.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		sub, err := fs.Sub(examples.FS, e.Name())
		if err != nil {
			t.Fatal(err)
		}
		mustLoad(t, sub)
		src, err := fs.ReadFile(sub, "fleet.hcl")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(Format(src)), string(src)); diff != "" {
			t.Errorf("%s is not laid out:\n%s", e.Name(), diff)
		}
	}
}

func TestInitWritesAValidFleetAndOverwritesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "specs")
	if err := Init(dir, false); err != nil {
		t.Fatal(err)
	}
	_, files, diags := Load(dir, bundled)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	want := []string{"fleet.hcl", "scripts/prepare.sh", "scripts/reset.sh"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(files))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	fleet := filepath.Join(dir, "fleet.hcl")
	writeFile(t, fleet, "# mine\n")
	if err := Init(dir, false); err == nil || !strings.Contains(err.Error(), ErrExists.Error()) {
		t.Errorf("init over a fleet gave %v, want %v", err, ErrExists)
	}
	if got := string(readFile(t, fleet)); got != "# mine\n" {
		t.Errorf("init overwrote the fleet with %q", got)
	}
	if err := Init(dir, true); err != nil || string(readFile(t, fleet)) == "# mine\n" {
		t.Errorf("init with force left the fleet, and gave %v", err)
	}
}
