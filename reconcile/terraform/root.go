package terraform

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// backend is where states live, if not in local files.
type backend struct {
	Type   string          `json:"type"`
	Config json.RawMessage `json:"config"`
}

const shardMark = "{shard}"

// Check finds what is wrong with options before anything is made.
func (o Options) Check() error {
	if _, err := o.checked(); err != nil {
		return err
	}
	_, err := parseBackend(o.Backend)
	return err
}

func parseBackend(raw json.RawMessage) (*backend, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var b backend
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	err := dec.Decode(&b)
	if err == nil && dec.More() {
		err = fmt.Errorf("there is more behind it, from byte %d on", dec.InputOffset())
	}
	var config map[string]any
	if err == nil && len(b.Config) > 0 {
		err = json.Unmarshal(b.Config, &config)
	}
	if err != nil {
		return nil, fmt.Errorf("state backend: want {\"type\": \"s3\", \"config\": {…}}: %w", err)
	}
	if b.Type == "" || !marked(config) {
		return nil, fmt.Errorf("state backend %q: a type is needed, and %q in some string of its config, so that each shard has a key of its own", b.Type, shardMark)
	}
	return &b, nil
}

// marked says whether some string in v has the mark of the shard. One in the name of a field marks nothing.
func marked(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.Contains(v, shardMark)
	case []any:
		return slices.ContainsFunc(v, marked)
	case map[string]any:
		return slices.ContainsFunc(slices.Collect(maps.Values(v)), marked)
	}
	return false
}

// root is a generated Terraform root: one module call, its inputs, its output. It is the same for
// local trees, remote sources and every backend. The output is one text, because Terraform takes long over the type of a large
// object: with 25 guests as long as over everything else in an apply.
func (in intent) root() map[string]any {
	call := map[string]any{"source": "./module"}
	if in.Job.Module.Source != "" {
		call["source"] = in.Job.Module.Source
		if in.Job.Module.Version != "" {
			call["version"] = in.Job.Module.Version
		}
	}
	for _, name := range contractInputs {
		call[name] = "${var." + name + "}"
	}
	for name := range in.variables() {
		call[name] = "${var.variables[" + strconv.Quote(name) + "]}"
	}
	root := map[string]any{
		"variable": map[string]any{
			"guests":              map[string]any{"type": "map(object({incarnation=number,user_data=string}))"},
			"pool":                map[string]any{"type": "string"},
			"ssh_authorized_keys": map[string]any{"type": "list(string)"},
			"variables":           map[string]any{"type": "any"},
		},
		"module": map[string]any{"guests": call},
		"output": map[string]any{"guests": map[string]any{"value": "${jsonencode(module.guests.guests)}", "sensitive": true}},
	}
	return root
}

func (in intent) variables() map[string]json.RawMessage {
	var v map[string]json.RawMessage
	if len(in.Job.Variables) > 0 {
		_ = json.Unmarshal(in.Job.Variables, &v) // checked when the job was accepted
	}
	return v
}

// rootInputs are the values for the root's variables; they go by file, never by argument.
type rootInputs struct {
	Guests         map[string]Guest           `json:"guests"`
	Pool           string                     `json:"pool"`
	AuthorizedKeys []string                   `json:"ssh_authorized_keys"`
	Variables      map[string]json.RawMessage `json:"variables"`
}

func (in intent) inputs() rootInputs {
	all := rootInputs{Guests: in.Job.Guests, Pool: in.Job.Pool, AuthorizedKeys: in.Job.AuthorizedKeys, Variables: in.variables()}
	if all.Guests == nil {
		all.Guests = map[string]Guest{}
	}
	if all.AuthorizedKeys == nil {
		all.AuthorizedKeys = []string{}
	}
	if all.Variables == nil {
		all.Variables = map[string]json.RawMessage{}
	}
	return all
}

// backendBlock is the backend's configuration for the shard, inside the root (0600).
func (in intent) backendBlock() (map[string]any, error) {
	b, err := parseBackend(in.Backend)
	if b == nil || err != nil {
		return nil, err
	}
	config := strings.ReplaceAll(string(b.Config), shardMark, in.Job.Shard)
	return map[string]any{"backend": map[string]any{b.Type: json.RawMessage(config)}}, nil
}

// writeRoot writes the generated root, its inputs and the CLI configuration.
func (r *run) writeRoot() error {
	root := r.in.root()
	block, err := r.in.backendBlock()
	if err != nil {
		return err
	}
	if block != nil {
		root["terraform"] = block
	}
	work := r.dir.work()
	if err := replaceJSON(filepath.Join(work, "main.tf.json"), root); err != nil {
		return err
	}
	if err := replaceFile(r.cliConfig(), []byte(cliConfig(r.in.Mirror))); err != nil {
		return err
	}
	return replaceJSON(r.dir.inputs(), r.in.inputs()) // made anew for each run
}

func (r *run) cliConfig() string { return filepath.Join(r.dir.work(), "cli.tfrc") }

// cliConfig makes Terraform use the mirror, and then nothing else, for providers. Without a mirror
// it is empty: what a user has in their own configuration must not decide how machines are made.
func cliConfig(mirror string) string {
	if mirror == "" {
		return ""
	}
	return "provider_installation {\n  filesystem_mirror {\n    path    = " + strconv.Quote(mirror) +
		"\n    include = [\"*/*/*\"]\n  }\n}\n"
}

// copyModule puts the module's tree into the work directory when it is not the one there.
func (r *run) copyModule() error {
	to := filepath.Join(r.dir.work(), "module")
	mark := filepath.Join(r.dir.work(), "module.digest")
	digest := r.in.Job.Module.Digest
	if digest == "" {
		return os.RemoveAll(to)
	}
	if had, err := os.ReadFile(mark); err == nil && string(had) == digest {
		return nil
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := copyTree(os.DirFS(filepath.Join(r.in.Modules, digest)), to); err != nil {
		return err
	}
	if err := r.copyLockFile(to); err != nil {
		return err
	}
	return writeFile(mark, []byte(digest))
}

const lockFile = ".terraform.lock.hcl"

// copyLockFile pins the providers to those in the dependency lock that the module ships, or else to
// those that the first shard of the same module got: one digest, one set of providers.
func (r *run) copyLockFile(module string) error {
	to := filepath.Join(r.dir.work(), lockFile)
	for _, from := range []string{filepath.Join(module, lockFile), r.sharedLockFile()} {
		raw, err := os.ReadFile(from)
		if err == nil {
			return writeFile(to, raw)
		}
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return removeIfThere(to)
}

func (r *run) sharedLockFile() string {
	return filepath.Join(r.in.Modules, r.in.Job.Module.Digest+lockFile)
}

// shareLockFile keeps the lock that init has made for the next shards of the module. The first one
// wins; a module without providers has none. A preview decides nothing.
func (r *run) shareLockFile() error {
	if r.in.Job.Module.Digest == "" || r.in.Preview != "" {
		return nil
	}
	err := os.Link(filepath.Join(r.dir.work(), lockFile), r.sharedLockFile())
	if errors.Is(err, os.ErrExist) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Of a module without providers and modules of others, init makes one small file, the same for each shard with the same key.
// So the first one keeps it for the others, which need no init then.

var moduleList = filepath.Join(".terraform", "modules", "modules.json")

func (r *run) initMark() string { return filepath.Join(r.dir.work(), "init.key") }

func (r *run) keptInit(key string) string { return filepath.Join(r.in.Modules, key+".init") }

// initAsBefore does what init would do, where that is known.
func (r *run) initAsBefore(key string) bool {
	made, err := os.ReadFile(r.keptInit(key))
	if err != nil || !json.Valid(made) {
		return false
	}
	if r.in.Preview == "" { // which changes nothing
		useTree(r.in.Modules, key+".init")
	}
	work := r.dir.work()
	err = os.RemoveAll(filepath.Join(work, ".terraform"))
	if err == nil {
		err = os.MkdirAll(filepath.Join(work, filepath.Dir(moduleList)), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(work, moduleList), made, 0o600)
	}
	return err == nil
}

// keepInit keeps what init has made, when that is all. A preview decides nothing. What can't be kept is made again.
func (r *run) keepInit(key string) {
	work, files := r.dir.work(), []string{}
	err := fs.WalkDir(os.DirFS(work), ".terraform", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, name)
		}
		return err
	})
	if err != nil || r.in.Preview != "" || !slices.Equal(files, []string{moduleList}) {
		return
	}
	if made, err := os.ReadFile(filepath.Join(work, moduleList)); err == nil {
		_ = writeFile(r.keptInit(key), made)
	}
}

// forgetInit has the next run of the shard begin with init.
func (r *run) forgetInit() {
	if key, err := os.ReadFile(r.initMark()); err == nil {
		_ = os.Remove(r.keptInit(string(key)))
	}
	_ = os.Remove(r.initMark())
}

// initKey is the digest of everything that init depends on.
func (r *run) initKey() (string, error) {
	sum := sha256.New()
	for _, name := range []string{"main.tf.json", "module.digest", lockFile, "cli.tfrc"} {
		raw, err := os.ReadFile(filepath.Join(r.dir.work(), name))
		if err != nil && !os.IsNotExist(err) {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s\n", name, len(raw), raw)
	}
	fmt.Fprintf(sum, "%s %s\n", r.in.Binary, r.in.Version)
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// names are all guests that an address of this shard can belong to.
func (r *run) names(st *state) []string {
	names := slices.Collect(maps.Keys(r.in.Job.Guests))
	names = append(names, r.in.Job.Destroy...)
	names = slices.AppendSeq(names, maps.Keys(r.applied))
	if out, err := st.outputs(); err == nil {
		names = slices.AppendSeq(names, maps.Keys(out))
	}
	slices.Sort(names)
	return slices.Compact(names)
}
