package specs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// change is one edit, in the words of the command: "set cache ci warm=3 -size" unsets size.
func change(t testing.TB, words ...string) *Edit {
	t.Helper()
	var set, unset []string
	for _, w := range words[3:] {
		if name, ok := strings.CutPrefix(w, "-"); ok {
			unset = append(unset, name)
		} else {
			set = append(set, w)
		}
	}
	e, err := NewEdit(Action(words[0]), words[1], words[2], set, unset)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func specDir(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func filesOf(t testing.TB, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		files[e.Name()] = string(readFile(t, filepath.Join(dir, e.Name())))
	}
	return files
}

// messy has a comment, a blank line or a way to write things for each promise that edits leave alone what
// they are not about.
const messy = `# The fleet.

locals { image = "debian" }

# Made by hand.
pool "a" {
	module = "local" // comes with the binary
	max=8
	labels   = { os = "linux", "arch"="amd64" } # requests
	capacity = {
		cpus   = 2 # cores
		memory = 2048
	}
	variables = merge({ image = local.image }, {})
	/* Twice
	   is enough. */
	probe "ssh" { failures = 2 }
	brake { max_unhealthy = "40%" }
}

cache  "c"  {
  pools = [ pool.a ]   # in order


  warm  = local.image == "debian" ? 1 : 0 # computed
  # The size.
  size  = 4

  # Leases.
  lease {
    ttl = "5m" /* short */
    max = "1h"
  }
  hold {
    max = 1
  }
}
`

func TestAnEditChangesNothingButWhatItIsAbout(t *testing.T) {
	for name, test := range map[string]struct {
		edit     []string
		from, to string // the part of messy that changes, and what becomes of it
	}{
		"a number, and the comment behind it stays": {[]string{"set", "pool", "a", "max=12"}, "max=8", "max=12"},
		"text, and the comment behind it stays":     {[]string{"set", "pool", "a", "module=git::https://x.org/m.git"}, `"local" //`, `"git::https://x.org/m.git" //`},
		"a list of pools":                           {[]string{"set", "cache", "c", "pools=a"}, "[ pool.a ]", "[pool.a]"},
		"a literal in place of an expression":       {[]string{"set", "cache", "c", "warm=3"}, `local.image == "debian" ? 1 : 0 #`, "3 #"},
		"an expression":                             {[]string{"set", "cache", "c", "size:= pool.a.max - 4 "}, "= 4\n\n  # Leases", "= pool.a.max - 4\n\n  # Leases"},
		"an attribute of a block inside":            {[]string{"set", "cache", "c", "lease.ttl=10m"}, `"5m"`, `"10m"`},
		"a share":                                   {[]string{"set", "pool", "a", "brake.max_unhealthy=30%"}, "40%", "30%"},
		"an attribute of a probe":                   {[]string{"set", "pool", "a", "probe.ssh.failures=4"}, "failures = 2", "failures = 4"},
		"a key of an object":                        {[]string{"set", "pool", "a", "labels.os=bsd"}, `"linux"`, `"bsd"`},
		"a key in quotes":                           {[]string{"set", "pool", "a", "labels.arch=arm64"}, `"arch"="amd64"`, `"arch"="arm64"`},
		"a key of an object on many lines":          {[]string{"set", "pool", "a", "capacity.cpus=4"}, "= 2 # cores", "= 4 # cores"},
		"a new attribute, below the others":         {[]string{"set", "pool", "a", "spare=1"}, "{})\n", "{})\n\tspare     = 1\n"},
		"a new attribute, with its equals sign in line": {
			[]string{"set", "cache", "c", "max=6"}, "size  = 4\n", "size  = 4\n  max   = 6\n",
		},
		"a new attribute that is too long for that": {
			[]string{"set", "cache", "c", "enabled=false"}, "size  = 4\n", "size  = 4\n  enabled = false\n",
		},
		"a new attribute in a block on one line": {
			[]string{"set", "pool", "a", "probe.ssh.every=2s"}, `{ failures = 2 }`, "{\n\t\tfailures = 2\n\t\tevery    = \"2s\"\n\t}",
		},
		"a new block inside": {
			[]string{"set", "cache", "c", "reuse.uses=5", "reuse.age=24h"}, "max = 1\n  }\n", "max = 1\n  }\n\n  reuse {\n    uses = 5\n    age  = \"24h\"\n  }\n",
		},
		"a new guard": {
			[]string{"set", "pool", "a", "guard.max_retire=50%"}, "\"40%\" }\n", "\"40%\" }\n\n\tguard {\n\t\tmax_retire = \"50%\"\n\t}\n",
		},
		"a new probe": {
			[]string{"set", "pool", "a", "probe.http.port=80"}, "\"40%\" }\n", "\"40%\" }\n\n\tprobe \"http\" {\n\t\tport = 80\n\t}\n",
		},
		"a new key on the same line": {[]string{"set", "pool", "a", "labels.zone=b"}, `="amd64" }`, `="amd64", zone = "b" }`},
		"a new key on a line of its own": {
			[]string{"set", "pool", "a", "capacity.gpu=1"}, "= 2048\n", "= 2048\n\t\tgpu    = 1\n",
		},
		"a new key that needs quotes":                  {[]string{"set", "pool", "a", "labels.a/b.c=${x}"}, `="amd64" }`, `="amd64", "a/b.c" = "$${x}" }`},
		"an attribute goes with its comment":           {[]string{"set", "cache", "c", "-size"}, "  # The size.\n  size  = 4\n", ""},
		"an attribute goes and the gap above it stays": {[]string{"set", "cache", "c", "-warm"}, "\n\n\n  warm  = local.image == \"debian\" ? 1 : 0 # computed\n", "\n\n\n"},
		"a block goes with its comment":                {[]string{"set", "cache", "c", "-lease"}, "  # Leases.\n  lease {\n    ttl = \"5m\" /* short */\n    max = \"1h\"\n  }\n", ""},
		"a block goes with its last attribute":         {[]string{"set", "cache", "c", "-hold.max"}, "  hold {\n    max = 1\n  }\n", ""},
		"a probe stays without attributes":             {[]string{"set", "pool", "a", "-probe.ssh.failures"}, "{ failures = 2 }", "{}"},
		"a probe goes with its comment":                {[]string{"set", "pool", "a", "-probe.ssh"}, "\t/* Twice\n\t   is enough. */\n\tprobe \"ssh\" { failures = 2 }\n", ""},
		"the first key goes":                           {[]string{"set", "pool", "a", "-labels.os"}, `os = "linux", `, ""},
		"the last key goes":                            {[]string{"set", "pool", "a", "-labels.arch"}, `, "arch"="amd64"`, ""},
		"every key goes":                               {[]string{"set", "pool", "a", "-labels.arch", "-labels.os"}, `{ os = "linux", "arch"="amd64" }`, "{ }"},
		"a key goes with its line":                     {[]string{"set", "pool", "a", "-capacity.cpus"}, "\t\tcpus   = 2 # cores\n", ""},
		"what is not there is unset already":           {[]string{"set", "cache", "c", "-max", "-reuse", "-reuse.age", "-hold.for"}, "", ""},
		"what is set already stays":                    {[]string{"set", "cache", "c", "size=4", "lease.max=1h", "hold.max=1"}, "", ""},
		"a cache goes with the gap before it": {
			[]string{"remove", "cache", "c"}, messy[strings.Index(messy, "\ncache"):], "",
		},
		"several at once": {
			[]string{"set", "cache", "c", "size=5", "hold.for=1h", "-lease.max"},
			messy[strings.Index(messy, "  size"):],
			"  size  = 5\n\n  # Leases.\n  lease {\n    ttl = \"5m\" /* short */\n  }\n  hold {\n    max = 1\n    for = \"1h\"\n  }\n}\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Count(messy, test.from) != 1 && test.from != "" {
				t.Fatalf("%q stands in the spec %d times", test.from, strings.Count(messy, test.from))
			}
			want := strings.Replace(messy, test.from, test.to, 1)
			for kind, ends := range map[string]string{"\\n": "\n", "\\r\\n": "\r\n"} {
				lines := strings.NewReplacer("\n", ends)
				dir := specDir(t, map[string]string{"a.hcl": lines.Replace(messy), "b.hcl": "\n#\tother\n"})
				edited, err := change(t, test.edit...).Apply(dir, bundled)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(lines.Replace(want), string(edited.After)); diff != "" {
					t.Errorf("with lines that end in %s, -want +got:\n%s", kind, diff)
				}
			}
		})
	}
}

func TestAKeyIsEditedInObjectsOfEveryLayout(t *testing.T) {
	for name, test := range map[string]struct{ from, edit, want string }{
		"into an object without keys":       {"{}", "labels.a=1", `{ a = "1" }`},
		"into one with a space":             {"{\n  }", "labels.a=1", `{ a = "1" }`},
		"into one with a comment":           {"{ /* none */ }", "labels.a=1", `{ /* none */ a = "1" }`},
		"into one with a line of comment":   {"{\n    # none\n  }", "labels.a=1", "{\n    # none\n    a = \"1\"\n  }"},
		"behind a comma":                    {"{\n    a = 1,\n  }", "labels.bb=2", "{\n    a = 1,\n    bb = \"2\",\n  }"},
		"behind a comma and a comment":      {"{\n    aa = 1, # one\n  }", "labels.b=2", "{\n    aa = 1, # one\n    b  = \"2\",\n  }"},
		"behind a comma on the same line":   {"{ a = 1, }", "labels.b=2", `{ a = 1, b = "2", }`},
		"behind a colon":                    {"{\n    aaaa : 1\n  }", "labels.b=2", "{\n    aaaa : 1\n    b    = \"2\"\n  }"},
		"behind a value of many lines":      {"{\n    aaaa = lower(\n      1)\n  }", "labels.b=2", "{\n    aaaa = lower(\n      1)\n    b = \"2\"\n  }"},
		"the last of equal keys counts":     {"{ a = 1, a = 2 }", "labels.a=3", `{ a = 1, a = "3" }`},
		"a number that was text":            {`{ a = "1" }`, "variables.a=2", `{ a = "2" }`},
		"a number":                          {`{ a = 1 }`, "variables.a=2.5", `{ a = 2.5 }`},
		"what reads otherwise as a number":  {`{ a = 1 }`, "variables.a=1.10", `{ a = "1.10" }`},
		"true":                              {`{ a = 1 }`, "variables.a=true", `{ a = true }`},
		"an expression":                     {`{ a = 1 }`, "variables.a:=[1, 2]", `{ a = [1, 2] }`},
		"a key that is a keyword":           {`{}`, "variables.for=each", `{ "for" = "each" }`},
		"without the only key":              {"{ a = 1 }", "-labels.a", "{ }"},
		"without the only key and comma":    {"{ a = 1, }", "-labels.a", "{ }"},
		"without the only line":             {"{\n    a = 1\n  }", "-labels.a", "{\n  }"},
		"without the last before a comma":   {"{ a = 1, b = 2, }", "-labels.b", "{ a = 1, }"},
		"without the last in its own line":  {"{ a = 1, # one\n    b = 2 }", "-labels.b", "{ a = 1, # one\n }"},
		"without a key that is there twice": {"{ a = 1, b = 2, a = 3 }", "-labels.a", "{ b = 2 }"},
		"without a key that is not there":   {"{ a = 1 }", "-labels.b", "{ a = 1 }"},
	} {
		t.Run(name, func(t *testing.T) {
			attr := strings.TrimPrefix(test.edit[:strings.Index(test.edit, ".")], "-")
			file := func(object string) string {
				return "pool \"a\" {\n  module = \"local\"\n  max = 1\n  " + attr + " = " + object + "\n}\n"
			}
			edited, err := change(t, "set", "pool", "a", test.edit).Apply(specDir(t, map[string]string{"fleet.hcl": file(test.from)}), bundled)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(file(test.want), string(edited.After)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestABlockIsCreatedWhereItsLikeAre(t *testing.T) {
	cache := func(name string) string { return "cache \"" + name + "\" {\n  pools = [pool.a]\n}\n" }
	for name, test := range map[string]struct {
		files      map[string]string
		edit       []string
		file, want string
	}{
		"at the end of the file with most of them": {
			map[string]string{"a.hcl": onePool, "b.hcl": cache("x"), "c.hcl": cache("y") + cache("z")},
			[]string{"create", "cache", "new", "pools=a", "lease.ttl=10m", "warm=1"},
			"c.hcl", cache("y") + cache("z") + "\ncache \"new\" {\n  pools = [pool.a]\n  warm  = 1\n\n  lease {\n    ttl = \"10m\"\n  }\n}\n",
		},
		"in the first of files with as many": {
			map[string]string{"a.hcl": onePool, "b.hcl": cache("x") + "# end", "c.hcl": cache("y")},
			[]string{"create", "cache", "new", "pools= a ,"},
			"b.hcl", cache("x") + "# end\n\n" + cache("new"),
		},
		"in fleet.hcl where there are none": {
			map[string]string{"a.hcl": onePool, "fleet.hcl": "# Fleet.\n\n"},
			[]string{"create", "cache", "new", "pools=a"},
			"fleet.hcl", "# Fleet.\n\n" + cache("new"),
		},
		"in a new fleet.hcl": {
			map[string]string{"a.hcl": onePool},
			[]string{"create", "cache", "new", "pools=a"},
			"fleet.hcl", cache("new"),
		},
		"in an empty directory": {
			nil,
			[]string{"create", "pool", "new", "module=local", "max=4", "labels.os=linux", "labels.arch=arm", "probe.tcp.port=22"},
			"fleet.hcl", "pool \"new\" {\n  module = \"local\"\n  max    = 4\n  labels = { os = \"linux\", arch = \"arm\" }\n\n  probe \"tcp\" {\n    port = 22\n  }\n}\n",
		},
		"with the line ends of the file": {
			map[string]string{"a.hcl": "# x\r\n" + strings.ReplaceAll(onePool, "\n", "\r\n")},
			[]string{"create", "pool", "new", "module=local", "max=4"},
			"a.hcl", strings.ReplaceAll("# x\n"+onePool+"\npool \"new\" {\n  module = \"local\"\n  max    = 4\n}\n", "\n", "\r\n"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := specDir(t, test.files)
			edited, err := change(t, test.edit...).Apply(dir, bundled)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.files, filesOf(t, dir), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("the files changed before they were written:\n%s", diff)
			}
			if err := edited.Write(); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{test.file: test.want}
			for name, body := range test.files {
				if name != test.file {
					want[name] = body
				}
			}
			if diff := cmp.Diff(want, filesOf(t, dir)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestAnEditThatLeavesNoSpecIsRefusedWithEveryFault(t *testing.T) {
	for name, test := range map[string]struct {
		more string // in a file of its own
		edit []string
		want []string // summaries
	}{
		"a pool that a cache lists":        {"", []string{"remove", "pool", "a"}, []string{sumUnknownPool}},
		"a number that does not fit":       {"", []string{"set", "cache", "c", "warm=9", "hold.max=x"}, []string{sumWarmOverSize, sumWrongType}},
		"a missing attribute":              {"", []string{"set", "cache", "c", "-pools"}, []string{sumMissingAttribute}},
		"an empty list":                    {"", []string{"set", "cache", "c", "pools="}, []string{sumNoPools}},
		"an unknown pool":                  {"", []string{"set", "cache", "c", "pools=b"}, []string{sumUnknownPool}},
		"an unknown local":                 {"", []string{"set", "cache", "c", "warm:=local.w"}, []string{sumUnknownLocal}},
		"a module that is not there":       {"", []string{"create", "pool", "b", "module=./vm", "max=1"}, []string{sumModuleNotFound}},
		"a cache with the name of a pool":  {"", []string{"create", "cache", "a", "pools=a"}, []string{sumCacheNamedAsPool}},
		"a guard without its attribute":    {"", []string{"create", "pool", "b", "max=1"}, []string{sumMissingAttribute}},
		"a fault that was there before":    {"guard {\n}\n", []string{"set", "cache", "c", "warm=1"}, []string{sumMissingAttribute}},
		"a file that does not parse":       {"guard {\n", []string{"set", "cache", "c", "warm=1"}, []string{"Unclosed configuration block"}},
		"an expression that ends the line": {"", []string{"set", "cache", "c", "warm:=1\n+ 1"}, []string{"Argument or block definition required"}},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"fleet.hcl": messy}
			if test.more != "" {
				files["more.hcl"] = test.more
			}
			dir := specDir(t, files)
			_, err := change(t, test.edit...).Apply(dir, bundled)
			faults, ok := errors.AsType[*Faults](err)
			if !ok {
				t.Fatalf("got %v, want faults", err)
			}
			var got []string
			for _, d := range faults.Diagnostics {
				got = append(got, d.Summary)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(files, filesOf(t, dir)); diff != "" {
				t.Errorf("the files changed:\n%s", diff)
			}
		})
	}
}

func TestAnEditThatCannotBeMadeSaysWhy(t *testing.T) {
	for name, test := range map[string]struct {
		edit []string
		want string
	}{
		"a name with a typo":    {[]string{"set", "cache", "d", "warm=1"}, `no cache is called "d". Known: "c".`},
		"a block that is there": {[]string{"create", "pool", "a"}, `a pool called "a" is at fleet.hcl:6,1-9 already: change it with "greenroom pool set a", or choose another name`},
		"an object that is computed": {
			[]string{"set", "pool", "a", "variables.image=x"},
			"variables is computed in line 14 of fleet.hcl, and only an object that is written out can be edited key by key: edit it there by hand, or replace it with \"variables:=EXPRESSION\"",
		},
		"a key to be unset in such an object": {[]string{"set", "pool", "a", "-variables.image"}, "variables is computed in line 14"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := change(t, test.edit...).Apply(specDir(t, map[string]string{"fleet.hcl": messy}), bundled)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestWhatCannotBeAnEditIsSaidInOneLine(t *testing.T) {
	for _, test := range []struct {
		action     Action
		kind, name string
		set, unset []string
		want       string
	}{
		{Set, "cache", "c", []string{"wram=1"}, nil, `a cache has no attribute "wram". Did you mean "warm"?`},
		{Set, "cache", "c", []string{"lease.tll=1"}, nil, `a cache has no attribute "lease.tll". Did you mean "lease.ttl"?`},
		{Set, "pool", "c", []string{"probe.icmp.every=1"}, nil, `a pool has no attribute "probe.icmp.every". Did you mean "probe.tcp.every"?`},
		{Set, "pool", "c", nil, []string{"max.x"}, `a pool has no attribute "max.x"`},
		{Set, "cache", "c", nil, []string{"leese"}, `a cache has no attribute "leese"`},
		{Set, "cache", "c", []string{"warm"}, nil, `"warm" is no assignment: write NAME=VALUE, such as lease.ttl=10m, or NAME:=EXPRESSION, such as warm:=local.warm`},
		{Set, "cache", "c", []string{"lease=5m"}, nil, `"lease" is a block: set an attribute of it, such as lease.max or lease.ttl`},
		{Set, "pool", "c", []string{"labels=x"}, nil, `"labels" is an object: set one of its keys with labels.KEY=VALUE, or all of it with labels:={ KEY = VALUE }`},
		{Set, "pool", "c", []string{"probe.exec.command=true"}, nil, `"probe.exec.command" is a list: write it as an expression, probe.exec.command:=["WORD", "WORD"]`},
		{Set, "cache", "c", []string{"warm:=1 +"}, nil, `"1 +" is no expression for "warm": `},
		{Set, "cache", "c", []string{"warm:=1\nsize = 2"}, nil, `is no expression for "warm": Extra characters after expression`},
		{Set, "cache", "c", []string{"warm:=" + strings.Repeat("-", 3000) + "1"}, nil, `the expression of "warm" has more than 2000 parts`},
		{Set, "cache", "c", []string{"warm:=1 # one"}, nil, `the expression of "warm" has a comment: write that into the file`},
		{Set, "cache", "c", []string{"warm=1", "warm=2"}, nil, `"warm" is given more than once: keep one`},
		{Set, "cache", "c", []string{"warm=1"}, []string{"warm"}, `"warm" is given more than once: keep one`},
		{Set, "cache", "c", nil, nil, "there is nothing to set: write NAME=VALUE, such as warm=2, or --unset NAME"},
		{Create, "pool", "A b", nil, nil, `"A b" can't be the name of a pool. A name has 1 to 40`},
	} {
		_, err := NewEdit(test.action, test.kind, test.name, test.set, test.unset)
		if err == nil || !strings.HasPrefix(err.Error(), test.want) && !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v %v gave %v, want %s", test.set, test.unset, err, test.want)
		}
	}
}

func TestAnEditIsCalledByWhatItDoes(t *testing.T) {
	for want, words := range map[string][]string{
		"Create pool a":  {"create", "pool", "a", "max=3"},
		"Remove cache c": {"remove", "cache", "c"},
		"Set warm=3, size:=local.size, unset max, hold of cache c": {"set", "cache", "c", "warm=3", "size:=local.size", "-max", "-hold"},
		"Unset max, hold of cache c":                               {"set", "cache", "c", "-max", "-hold"},
		"Set user_data=a b c of pool a":                            {"set", "pool", "a", "user_data=a\nb\x1bc"},
	} {
		if got := change(t, words...).String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestAnEditKeepsTheModeAndTheLinkOfItsFile(t *testing.T) {
	dir := specDir(t, map[string]string{"real": onePool})
	if err := os.Chmod(filepath.Join(dir, "real"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "fleet.hcl")); err != nil {
		t.Fatal(err)
	}
	edited, err := change(t, "set", "pool", "a", "max=5").Apply(dir, bundled)
	if err != nil {
		t.Fatal(err)
	}
	if err := edited.Write(); err != nil {
		t.Fatal(err)
	}
	link, _ := os.Readlink(filepath.Join(dir, "fleet.hcl"))
	info, err := os.Stat(filepath.Join(dir, "real"))
	if err != nil || info.Mode() != 0o600 || link != "real" || edited.Path != filepath.Join(dir, "real") {
		t.Errorf("the file at %s is %v, and the link leads to %q: %v", edited.Path, info.Mode(), link, err)
	}
	if got := string(readFile(t, edited.Path)); got != strings.Replace(onePool, "4", "5", 1) {
		t.Errorf("got %s", got)
	}
}

func TestAFileThatIsLinkedFromElsewhereIsNotEdited(t *testing.T) {
	outside := specDir(t, map[string]string{"fleet.hcl": onePool})
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(outside, "fleet.hcl"), filepath.Join(dir, "fleet.hcl")); err != nil {
		t.Fatal(err)
	}
	_, err := change(t, "set", "pool", "a", "max=5").Apply(dir, bundled)
	if faults, ok := errors.AsType[*Faults](err); !ok || faults.Diagnostics[0].Summary != sumLeaves {
		t.Errorf("got %v", err)
	}
}

func TestAFileThatChangedMeanwhileIsNotWritten(t *testing.T) {
	for name, meddle := range map[string]func(file string) error{
		"changed": func(file string) error { return os.WriteFile(file, []byte("# mine\n"), 0o644) },
		"removed": os.Remove,
	} {
		dir := specDir(t, map[string]string{"fleet.hcl": onePool})
		edited, err := change(t, "set", "pool", "a", "max=5").Apply(dir, bundled)
		if err != nil {
			t.Fatal(err)
		}
		if err := meddle(filepath.Join(dir, "fleet.hcl")); err != nil {
			t.Fatal(err)
		}
		before := filesOf(t, dir)
		if err := edited.Write(); err == nil || !strings.Contains(err.Error(), "has changed since it was read") {
			t.Errorf("%s: got %v", name, err)
		}
		if diff := cmp.Diff(before, filesOf(t, dir)); diff != "" {
			t.Errorf("%s: the files changed:\n%s", name, diff)
		}
	}
}

func TestAnEditKeepsToTheLimitsOfSpecs(t *testing.T) {
	large := onePool + strings.Repeat("#", MaxFileSize-len(onePool)-1) + "\n"
	_, err := change(t, "set", "pool", "a", "max=55").Apply(specDir(t, map[string]string{"fleet.hcl": large}), bundled)
	if err == nil || !strings.Contains(err.Error(), "would be larger than") {
		t.Errorf("an edit past the limit of a file gave %v", err)
	}
	many := map[string]string{}
	for i := range MaxFiles {
		many[fmt.Sprintf("%04d.hcl", i)] = ""
	}
	_, err = change(t, "create", "pool", "a", "max=5", "module=local").Apply(specDir(t, many), bundled)
	if faults, ok := errors.AsType[*Faults](err); !ok || faults.Diagnostics[0].Summary != sumTooManyFiles {
		t.Errorf("an edit that makes one file too many gave %v", err)
	}
	_, err = change(t, "set", "pool", "a", "max=5").Apply(filepath.Join(t.TempDir(), "nowhere"), bundled)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there gave %v", err)
	}
}
