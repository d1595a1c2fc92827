package gitops

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"greenroom/reconcile/condition"
)

// entry is one entry of a zip that a test makes.
type entry struct {
	name, body string
	mode       fs.FileMode
	flags      uint16
	says       uint64 // its size
	method     uint16
}

func pack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		if e.mode != 0 {
			h.SetMode(e.mode)
		}
		if e.method != 0 || e.flags != 0 { // as it comes, whatever it is
			h.Method, h.Flags, h.UncompressedSize64 = e.method, e.flags, e.says
			w, err := z.CreateRaw(h)
			if err == nil {
				_, err = w.Write([]byte(e.body))
			}
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		w, err := z.CreateHeader(h)
		if err == nil {
			_, err = w.Write([]byte(e.body))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func archiveSource(t *testing.T) *followed {
	t.Helper()
	return open(t, Options{Source: t.TempDir()})
}

func TestAPackedDirectoryIsReadAsTheDirectoryIs(t *testing.T) {
	dir := t.TempDir()
	for name, text := range fleetFiles("", "3") {
		write(t, filepath.Join(dir, name), text)
	}
	noError(t, os.Chmod(filepath.Join(dir, "modules/m/main.tf"), 0o700))
	zip, err := Zip(dir)
	noError(t, err)
	f := archiveSource(t)
	r := f.Archive(t.Context(), zip, []string{})
	mustGood(t, r)
	of := Load(dir)
	mustGood(t, of)
	if got, want := r.Name, "zip:"+strings.TrimPrefix(of.Name, "dir:"); got != want {
		t.Errorf("the revision of the archive is %s, that of the directory %s", got, of.Name)
	}
	module := r.Fleet.Pool("p").ModuleDir
	if _, err := os.Stat(filepath.Join(module, "main.tf")); err != nil || !strings.HasPrefix(module, f.o.StateDir) {
		t.Errorf("the module is in %s: %v", module, err)
	}
	r.Fleet.Revision, r.Fleet.Dir, r.Fleet.Pools[0].ModuleDir = of.Fleet.Revision, of.Fleet.Dir, of.Fleet.Pools[0].ModuleDir
	r.Fleet.Pools[0].Range, r.Fleet.Caches[0].Range = of.Fleet.Pools[0].Range, of.Fleet.Caches[0].Range
	if d := cmp.Diff(of.Fleet, r.Fleet); d != "" {
		t.Error(d)
	}
}

func TestPackingLeavesOutWhatIsNotSpecs(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{
		"a.hcl", "scripts/x.sh", "modules/m/main.tf", "modules/m/.terraform.lock.hcl",
		".git/config", "modules/m/.terraform/providers/p", "modules/m/terraform.tfstate", "modules/m/terraform.tfstate.backup", "sub/.git",
	} {
		write(t, filepath.Join(dir, name), "text\n")
	}
	noError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "link.hcl")))
	first, err := Zip(dir)
	noError(t, err)
	z, err := zip.NewReader(bytes.NewReader(first), int64(len(first)))
	noError(t, err)
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
	}
	if d := cmp.Diff([]string{"a.hcl", "modules/m/.terraform.lock.hcl", "modules/m/main.tf", "scripts/x.sh"}, names); d != "" {
		t.Error(d)
	}
	noError(t, os.Chtimes(filepath.Join(dir, "a.hcl"), z.File[0].Modified, z.File[0].Modified))
	second, err := Zip(dir)
	noError(t, err)
	if !bytes.Equal(first, second) {
		t.Error("the same files make two archives")
	}
}

func TestPackingStopsAtTheLimits(t *testing.T) {
	many := t.TempDir()
	for i := range maxEntries + 1 {
		noError(t, os.WriteFile(filepath.Join(many, fmt.Sprint(i)), nil, 0o600))
	}
	if _, err := Zip(many); err == nil || !strings.Contains(err.Error(), "more than 5000 files") {
		t.Error(err)
	}
	large := t.TempDir()
	noError(t, os.WriteFile(filepath.Join(large, "zeros"), nil, 0o600))
	noError(t, os.Truncate(filepath.Join(large, "zeros"), maxUnpacked+1))
	if _, err := Zip(large); err == nil || !strings.Contains(err.Error(), "more than 64 MiB") {
		t.Error(err)
	}
}

func TestAnArchiveThatIsNoSpecDirectoryIsRefused(t *testing.T) {
	good := entry{name: "a.hcl", body: onePool("1")}
	var many []entry
	for i := range maxEntries + 1 {
		many = append(many, entry{name: fmt.Sprint(i)})
	}
	f, store := archiveSource(t), t.TempDir()
	for name, c := range map[string]struct {
		zip    []byte
		reason string
		want   string
	}{
		"no zip":               {[]byte("hello"), condition.SpecInvalid, "no zip"},
		"empty":                {pack(t), condition.SpecInvalid, "No spec files"},
		"nothing":              {nil, condition.SpecInvalid, "no zip"},
		"too large":            {make([]byte, MaxArchive+1), condition.TooLarge, "at most 8388608"},
		"an absolute name":     {pack(t, good, entry{name: "/etc/evil"}), condition.SpecInvalid, `"/etc/evil"`},
		"a way up":             {pack(t, good, entry{name: "../evil"}), condition.SpecInvalid, `"../evil"`},
		"a way up inside":      {pack(t, good, entry{name: "a/../../evil"}), condition.SpecInvalid, `"a/../../evil"`},
		"a dot":                {pack(t, good, entry{name: "./evil"}), condition.SpecInvalid, `"./evil"`},
		"a double slash":       {pack(t, good, entry{name: "a//evil"}), condition.SpecInvalid, `"a//evil"`},
		"a backslash":          {pack(t, good, entry{name: `a\evil`}), condition.SpecInvalid, `a\\evil`},
		"a drive":              {pack(t, good, entry{name: "C:evil"}), condition.SpecInvalid, `"C:evil"`},
		"a zero byte":          {pack(t, good, entry{name: "a\x00.hcl"}), condition.SpecInvalid, `a\x00.hcl`},
		"no name":              {pack(t, good, entry{name: ""}), condition.SpecInvalid, `the name ""`},
		"a long name":          {pack(t, good, entry{name: strings.Repeat("x", 1001)}), condition.SpecInvalid, "more than 1000 bytes"},
		"a name twice":         {pack(t, good, good), condition.SpecInvalid, `"a.hcl" is there twice`},
		"a directory twice":    {pack(t, good, entry{name: "d/"}, entry{name: "d/"}), condition.SpecInvalid, `"d" is there twice`},
		"a file as directory":  {pack(t, good, entry{name: "a.hcl/b"}), condition.SpecInvalid, "both a file and a directory"},
		"a file and directory": {pack(t, good, entry{name: "a.hcl/"}), condition.SpecInvalid, "there twice"},
		"a link":               {pack(t, good, entry{name: "b.hcl", body: "/etc/passwd", mode: fs.ModeSymlink | 0o777}), condition.SpecInvalid, "symbolic link"},
		"a device":             {pack(t, good, entry{name: "null", mode: fs.ModeDevice | 0o600}), condition.SpecInvalid, "neither"},
		"a pipe":               {pack(t, good, entry{name: "pipe", mode: fs.ModeNamedPipe | 0o600}), condition.SpecInvalid, "neither"},
		"a file called a directory": {
			pack(t, good, entry{name: "d", mode: fs.ModeDir | 0o700}), condition.SpecInvalid, "neither",
		},
		"an encrypted file":      {pack(t, good, entry{name: "b", body: "xxxxxxxxxxxxxx", flags: 1, method: zip.Store}), condition.SpecInvalid, "encrypted"},
		"another method":         {pack(t, good, entry{name: "b", body: "x", method: 14}), condition.SpecInvalid, "method"},
		"many entries":           {pack(t, many...), condition.TooLarge, "5001 entries"},
		"much when unpacked":     {pack(t, good, entry{name: "zeros", method: zip.Deflate, says: maxUnpacked}), condition.TooLarge, "64 MiB"},
		"a large script":         {pack(t, entry{name: "a.hcl", body: onePool("1") + "cache \"c\" {\n  pools = [pool.local]\n  prepare = \"z\"\n}\n"}, entry{name: "z", body: string(make([]byte, 2<<20))}), condition.SpecInvalid, "File is too large"},
		"a size that is a lie":   {lying(t, 10), condition.SpecInvalid, "a.hcl"},
		"a size beyond all":      {lying(t, 1<<32-2), condition.TooLarge, "64 MiB"},
		"a faulty spec":          {pack(t, entry{name: "a.hcl", body: onePool("0")}), condition.SpecInvalid, "a.hcl line 3"},
		"a module of the host":   {pack(t, entry{name: "a.hcl", body: strings.Replace(onePool("1"), `"local"`+"\n  max", `"/etc"`+"\n  max", 1)}), condition.SpecInvalid, `/etc`},
		"a module with too much": {pack(t, bigModule()...), condition.TooLarge, "5002 entries"},
	} {
		t.Run(name, func(t *testing.T) {
			if len(c.zip) > MaxArchive {
				mustFault(t, f.Archive(t.Context(), c.zip, []string{}), c.reason, c.want)
				return
			}
			a := archiveTask{Zip: c.zip, Modules: store, Room: shelfRoom}.do(func(answer) error { return nil }) // as the child does it
			mustFault(t, a.revision(), c.reason, c.want)
		})
	}
}

func bigModule() []entry {
	all := []entry{{name: "a.hcl", body: strings.Replace(onePool("1"), `"local"`+"\n  max", `"./m"`+"\n  max", 1)}}
	for i := range maxEntries + 1 {
		all = append(all, entry{name: fmt.Sprintf("m/%d.tf", i)})
	}
	return all
}

// lying is an archive whose directory says that its one file, of 2 MiB, has another size.
func lying(t *testing.T, size uint32) []byte {
	t.Helper()
	body := pack(t, entry{name: "a.hcl", body: strings.Repeat("#", 2<<20)})
	at := bytes.LastIndex(body, []byte("PK\x01\x02"))
	if at < 0 {
		t.Fatal("there is no central directory")
	}
	binary.LittleEndian.PutUint32(body[at+24:], size)
	return body
}

func TestAModuleOfTheHostIsForThoseWhoMayNameIt(t *testing.T) {
	module := t.TempDir()
	write(t, filepath.Join(module, "main.tf"), "\n")
	zip := pack(t, entry{name: "a.hcl", body: fmt.Sprintf("pool \"p\" {\n  module = %q\n  max = 1\n}\n", module)})
	f := archiveSource(t)
	mustGood(t, f.Archive(t.Context(), zip, nil))
	mustGood(t, f.Archive(t.Context(), zip, []string{module}))
	mustFault(t, f.Archive(t.Context(), zip, []string{}), condition.SpecInvalid, module)
	mustFault(t, f.Archive(t.Context(), zip, []string{"/elsewhere"}), condition.SpecInvalid, module)
}

func FuzzArchives(f *testing.F) {
	f.Add(pack(f, entry{name: "a.hcl", body: onePool("1")}, entry{name: "m/main.tf", body: "\n"}))
	f.Add(pack(f, entry{name: "../a.hcl"}))
	f.Add([]byte("PK\x05\x06"))
	f.Fuzz(func(t *testing.T, body []byte) {
		z, err := zip.NewReader(bytes.NewReader(body), int64(len(body)))
		if err != nil {
			return
		}
		tree, fault := checkArchive(z)
		if fault != nil {
			return
		}
		err = fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
			if !fs.ValidPath(name) || err == nil && !e.IsDir() && !e.Type().IsRegular() {
				t.Errorf("%q, %v", name, e)
			}
			if err == nil && !e.IsDir() {
				_, _ = fs.ReadFile(tree, name)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}
