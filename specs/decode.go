package specs

import (
	"io/fs"
	"maps"
	"regexp"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// decoder turns the blocks of all files into a fleet and gathers what is wrong on the way.
type decoder struct {
	fsys    fs.FS
	dir     string
	opts    Options
	schemas map[string]*schema
	funcs   map[string]function.Function
	files   map[string]*hcl.File
	diags   hcl.Diagnostics
	// partial is true when a file did not parse, so that blocks may be missing.
	partial bool

	locals map[string]*hclsyntax.Attribute
	blocks map[string]map[string]*block // "pool" and "cache", by name
	top    *block                       // stands for all files together; has the blocks that are the whole fleet's
	nodes  map[string]*node
	chain  []string // addresses of the nodes that are being computed, outermost first
}

func newDecoder(fsys fs.FS, dir string, opts Options) *decoder {
	d := &decoder{
		fsys: fsys, dir: dir, opts: opts,
		schemas: schemas(),
		files:   map[string]*hcl.File{},
		locals:  map[string]*hclsyntax.Attribute{},
		blocks:  map[string]map[string]*block{"pool": {}, "cache": {}},
		top:     &block{schema: &schema{kind: "fleet"}, src: &hclsyntax.Block{Body: &hclsyntax.Body{}}},
		nodes:   map[string]*node{},
	}
	d.funcs = d.functions()
	return d
}

// topBlocks are the types of blocks that stand in no other.
var topBlocks = []string{"cache", "guard", "locals", "pool"}

// collect takes the blocks of one file into the decoder.
func (d *decoder) collect(body *hclsyntax.Body) {
	for _, attr := range body.Attributes {
		if slices.Contains(topBlocks, attr.Name) {
			d.report(attr.NameRange, sumUnknownAttribute, "At the top of a file %q is a block. Write %s { … } without an equals sign.", attr.Name, attr.Name)
			continue
		}
		d.report(attr.NameRange, sumUnknownAttribute, "The attribute %q stands outside of any block. Put it into a pool, a cache or locals.", attr.Name)
	}
	for _, src := range body.Blocks {
		switch src.Type {
		case "locals":
			d.collectLocals(src)
		case "pool", "cache":
			d.collectBlock(src)
		case "guard":
			d.top.src.Body.Blocks = append(d.top.src.Body.Blocks, src)
		default:
			d.report(src.TypeRange, sumUnknownBlock, "There are no blocks of type %q here. %s", src.Type, hint(src.Type, slices.Clone(topBlocks)))
		}
	}
}

func (d *decoder) collectLocals(src *hclsyntax.Block) {
	d.labels(src, 0)
	for _, b := range src.Body.Blocks {
		d.report(b.TypeRange, sumUnknownBlock, "A locals block has only attributes, such as %s = { … } with an equals sign.", b.Type)
	}
	for _, attr := range bySource(src.Body.Attributes) {
		if first := d.locals[attr.Name]; first != nil {
			d.report(attr.NameRange, sumDuplicateLocal, "The local value %q is given at %s already. Rename or remove one of them.", attr.Name, first.NameRange)
			continue
		}
		d.locals[attr.Name] = attr
	}
}

// bySource lists attributes in the order of the file.
func bySource(attrs hclsyntax.Attributes) []*hclsyntax.Attribute {
	return slices.SortedFunc(maps.Values(attrs), func(a, b *hclsyntax.Attribute) int {
		return a.NameRange.Start.Byte - b.NameRange.Start.Byte
	})
}

func (d *decoder) collectBlock(src *hclsyntax.Block) {
	if !d.labels(src, 1) {
		d.partial = true
		return
	}
	b := &block{schema: d.schemas[src.Type], name: src.Labels[0], src: src}
	d.known(b)
	d.checkName(b)
	if first := d.blocks[src.Type][b.name]; first != nil {
		d.report(src.LabelRanges[0], map[string]string{"pool": sumDuplicatePool, "cache": sumDuplicateCache}[src.Type],
			"A %s called %q is declared at %s already. Rename or remove one of them.", src.Type, b.name, first.src.DefRange())
		return
	}
	d.blocks[src.Type][b.name] = b
}

func (d *decoder) labels(src *hclsyntax.Block, want int) bool {
	if len(src.Labels) == want {
		return true
	}
	form := map[int]string{0: src.Type + " { … }", 1: src.Type + ` "NAME" { … }`}[want]
	d.report(src.DefRange(), sumBlockLabels, "The number of labels of this block is %d. Write it as %s.", len(src.Labels), form)
	return false
}

var (
	validName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$`)
	guestName = regexp.MustCompile(`-[0-9]+$`)
)

const nameRule = "A name has 1 to 40 lower-case letters, digits and dashes, begins with a letter and does not end with a dash."

func (d *decoder) checkName(b *block) {
	switch at := b.src.LabelRanges[0]; {
	case !validName.MatchString(b.name):
		d.report(at, sumBadName, "%q can't be the name of a %s. %s", clip(b.name), b.schema.kind, nameRule)
	case b.schema.kind == "pool" && guestName.MatchString(b.name):
		d.report(at, sumBadName, "The pool name %q ends with a dash and a number, as guests do: the guests of a pool are called NAME-1, NAME-2 and so on. "+
			"End it with a letter, or leave the dash out.", b.name)
	}
}

// known reports the attributes and blocks of b that its schema does not have.
func (d *decoder) known(b *block) {
	for _, attr := range bySource(b.src.Body.Attributes) {
		switch _, ok := b.schema.attrs[attr.Name]; {
		case ok:
		case slices.Contains(b.schema.blocks, attr.Name):
			d.report(attr.NameRange, sumUnknownAttribute, "In a %s, %q is a block. Write %s { … } without an equals sign.", b.schema.kind, attr.Name, attr.Name)
		default:
			d.report(attr.NameRange, sumUnknownAttribute, "A %s has no attribute %q. %s", b.schema.kind, attr.Name, hint(attr.Name, b.schema.attrNames()))
		}
	}
	for _, src := range b.src.Body.Blocks {
		if _, ok := b.schema.attrs[src.Type]; ok {
			d.report(src.TypeRange, sumUnknownBlock, "In a %s, %q is an attribute. Write %s = … with an equals sign.", b.schema.kind, src.Type, src.Type)
		} else if !slices.Contains(b.schema.blocks, src.Type) {
			d.report(src.TypeRange, sumUnknownBlock, "A %s has no blocks of type %q. %s", b.schema.kind, src.Type, hint(src.Type, slices.Clone(b.schema.blocks)))
		}
	}
}

// attr returns an attribute of a pool or cache, with its default filled in.
func (d *decoder) attr(b *block, name string, at hcl.Range) cty.Value {
	return d.node(b.addr()+"."+name, at, func() cty.Value { return d.compute(b, name) })
}

// compute returns an attribute of any block: null where it is absent and has no default.
func (d *decoder) compute(b *block, name string) cty.Value {
	a := b.schema.attrs[name]
	if src := b.src.Body.Attributes[name]; src != nil {
		v, scope := d.eval(src.Expr)
		if !v.IsWhollyKnown() {
			return cty.DynamicVal
		}
		if !v.IsNull() {
			return a.rule(&given{decoder: d, name: name, expr: src.Expr, scope: scope, value: v})
		}
	}
	switch {
	case a.required:
		d.report(b.src.DefRange(), sumMissingAttribute, "This %s needs the attribute %q. Add it.", b.schema.kind, name)
		return cty.DynamicVal
	case a.otherwise != nil:
		return a.otherwise(d, b)
	}
	return cty.NullVal(cty.DynamicPseudoType)
}

// fleet decodes everything that was collected. Where there were errors its contents mean nothing.
func (d *decoder) fleet() *Fleet {
	for _, name := range slices.Sorted(maps.Keys(d.locals)) {
		d.local(name, d.locals[name].NameRange)
	}
	for name, b := range d.blocks["cache"] {
		if p := d.blocks["pool"][name]; p != nil {
			d.report(b.src.LabelRanges[0], sumCacheNamedAsPool, "Every pool has an invisible cache of its own name, and %q is a pool at %s. Rename the cache or the pool.",
				name, p.src.DefRange())
		}
	}
	f := &Fleet{Pools: []*Pool{}, Caches: []*Cache{}, Guard: d.guard(d.top)}
	for _, name := range d.names("pool") {
		f.Pools = append(f.Pools, d.pool(d.blocks["pool"][name]))
	}
	for _, name := range d.names("cache") {
		f.Caches = append(f.Caches, d.cache(d.blocks["cache"][name]))
	}
	d.checkWarm(f)
	return f
}

func (d *decoder) names(kind string) []string { return slices.Sorted(maps.Keys(d.blocks[kind])) }

func (d *decoder) pool(b *block) *Pool {
	get := d.getter(b)
	p := &Pool{
		Name: b.name, Module: asString(get("module")), UserData: asString(get("user_data")),
		Max: asInt(get("max")), Spare: asInt(get("spare")), ShardSize: asInt(get("shard_size")),
		Labels: map[string]string{}, Capacity: map[string]float64{}, Variables: asJSON(get("variables")),
		Range: b.src.DefRange(),
	}
	if p.Module != "" {
		p.ModuleDir = d.moduleDir(d.rangeOf(b, "module"), p.Module)
	}
	for key, v := range asMap(get("labels")) {
		p.Labels[key] = v.AsString()
	}
	for key, v := range asMap(get("capacity")) {
		p.Capacity[key] = asFloat(v)
	}
	p.Probes = d.probes(b)
	p.Brake.MaxUnhealthy = asFloat(d.child(b, "brake")("max_unhealthy"))
	p.Rollout.MaxUnavailable = asInt(d.child(b, "rollout")("max_unavailable"))
	p.Guard = d.guard(b)
	d.notAbove(b, "spare", "max", sumSpareOverMax, "The pool keeps spare = %d guests, but may have only max = %d. Lower spare or raise max.")
	return p
}

// guard is nil where b has none, because without a guard nothing is held.
func (d *decoder) guard(b *block) *Guard {
	if firstChild(b, "guard") == nil {
		return nil
	}
	return &Guard{MaxRetire: asFloat(d.child(b, "guard")("max_retire"))}
}

func (d *decoder) cache(b *block) *Cache {
	get := d.getter(b)
	c := &Cache{
		Name: b.name, Owner: asString(get("owner")), Enabled: asBool(get("enabled")),
		Warm: asInt(get("warm")), Size: asInt(get("size")), Max: asInt(get("max")),
		Prepare: d.script(get("prepare")), Reset: d.script(get("reset")),
		Range: b.src.DefRange(),
	}
	for _, v := range asList(get("pools")) {
		c.Pools = append(c.Pools, v.AsString())
	}
	reuse, hold := d.child(b, "reuse"), d.child(b, "hold")
	c.Lease = d.lease(b)
	c.Reuse = Reuse{Uses: asInt(reuse("uses")), Age: asDuration(reuse("age"))}
	c.Hold = Hold{For: asDuration(hold("for")), Max: asInt(hold("max"))}
	d.checkCache(b)
	return c
}

func (d *decoder) lease(b *block) Lease {
	get := d.child(b, "lease")
	ttl, longest := get("ttl"), get("max")
	l := Lease{TTL: asDuration(ttl), Max: asDuration(longest)}
	if ttl.IsKnown() && ttl.IsNull() {
		l.TTL = DefaultLeaseTTL
		if known(longest) {
			l.TTL = min(l.TTL, l.Max)
		}
	}
	if longest.IsKnown() && longest.IsNull() {
		l.Max = max(DefaultLeaseMax, l.TTL)
	}
	if known(ttl) && known(longest) && l.TTL > l.Max {
		src := firstChild(b, "lease")
		at := src.Body.Attributes["ttl"].Expr.Range()
		d.report(at, sumTTLOverMax, "A heartbeat prolongs the lease by ttl = %s, but the lease may live for only max = %s. Lower ttl or raise max.",
			brief(l.TTL), brief(l.Max)).Context = around(at, src.Body.Attributes["max"].SrcRange)
	}
	return l
}

func (d *decoder) script(v cty.Value) Script {
	if !known(v) {
		return Script{}
	}
	body, err := d.readInside(v.AsString())
	if err != nil { // the rule has read it before
		return Script{}
	}
	return Script{Path: v.AsString(), Body: body}
}

// probes are in the order of the file.
func (d *decoder) probes(b *block) []Probe {
	var probes []Probe
	for _, src := range b.src.Body.Blocks {
		if src.Type == "probe" && d.labels(src, 1) {
			probes = d.probe(probes, src)
		}
	}
	if len(probes) == 0 {
		probes = []Probe{{Kind: DefaultProbeKind, Every: DefaultProbeEvery, Timeout: DefaultProbeTimeout, Failures: DefaultProbeFailures}}
	}
	return probes
}

func (d *decoder) probe(probes []Probe, src *hclsyntax.Block) []Probe {
	kind := src.Labels[0]
	s := d.schemas["probe "+kind]
	if s == nil {
		d.report(src.LabelRanges[0], sumUnknownProbe, "There is no probe of kind %q. %s", clip(kind), hint(kind, []string{ProbeTCP, ProbeSSH, ProbeHTTP, ProbeExec}))
		return probes
	}
	if slices.ContainsFunc(probes, func(p Probe) bool { return p.Kind == kind }) {
		d.report(src.DefRange(), sumDuplicateProbe, "The pool has a probe of kind %q already. Remove one, or use another kind: tcp, ssh, http or exec.", kind)
	}
	b := &block{schema: s, src: src}
	d.known(b)
	values := map[string]cty.Value{}
	for _, name := range slices.Sorted(maps.Keys(s.attrs)) {
		values[name] = d.compute(b, name)
	}
	p := Probe{
		Kind: kind, Every: asDuration(values["every"]), Timeout: asDuration(values["timeout"]), Failures: asInt(values["failures"]),
		Port: asInt(values["port"]), Path: asString(values["path"]),
	}
	for _, w := range asList(values["command"]) {
		p.Command = append(p.Command, w.AsString())
	}
	if t := values["timeout"]; t.IsKnown() && t.IsNull() {
		p.Timeout = min(DefaultProbeTimeout, p.Every)
	}
	if known(values["every"]) && p.Timeout > p.Every {
		d.report(d.rangeOf(b, "timeout"), sumTimeoutOverEvery, "One probe may take timeout = %s, but the next one starts after every = %s. Lower timeout or raise every.",
			brief(p.Timeout), brief(p.Every)).Context = src.Range().Ptr()
	}
	return append(probes, p)
}

// getter computes each attribute of a pool or cache once, whoever asks.
func (d *decoder) getter(b *block) func(string) cty.Value {
	return func(name string) cty.Value { return d.attr(b, name, b.src.DefRange()) }
}

// child decodes a block that may stand at most once in b; where it is absent its attributes have their defaults.
func (d *decoder) child(b *block, kind string) func(string) cty.Value {
	s := d.schemas[kind]
	values := map[string]cty.Value{}
	src := firstChild(b, kind)
	if src == nil {
		src = &hclsyntax.Block{Type: kind, Body: &hclsyntax.Body{}}
	} else {
		d.labels(src, 0)
		d.known(&block{schema: s, src: src})
	}
	for _, again := range b.src.Body.Blocks {
		if again.Type == kind && again != src {
			d.report(again.DefRange(), sumDuplicateBlock, "The block %q stands in this %s at %s already. Keep one of them.", kind, b.schema.kind, src.DefRange())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.attrs)) {
		values[name] = d.compute(&block{schema: s, src: src}, name)
	}
	return func(name string) cty.Value { return values[name] }
}

func firstChild(b *block, kind string) *hclsyntax.Block {
	for _, src := range b.src.Body.Blocks {
		if src.Type == kind {
			return src
		}
	}
	return nil
}

// rangeOf is where an attribute's value stands, or the block's head where the attribute is absent.
func (d *decoder) rangeOf(b *block, name string) hcl.Range {
	if src := b.src.Body.Attributes[name]; src != nil {
		return src.Expr.Range()
	}
	return b.src.DefRange()
}
