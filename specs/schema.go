package specs

import (
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Limits of single values.
const (
	MaxPoolGuests   = 100_000
	MaxShardSize    = 500
	MinLeaseTTL     = 5 * time.Second
	MaxUserData     = 64 << 10
	MaxLabels       = 32
	MaxLabelLength  = 63
	maxPathLength   = 1024
	maxOwnerLength  = 63
	maxCommandWords = 64
	maxDuration     = 10 * 365 * 24 * time.Hour
)

// schema says what may stand in a block.
type schema struct {
	kind   string
	attrs  map[string]attribute
	blocks []string
}

// attribute is a value in a block: how it is written, how it is checked, and what it is where the spec is silent.
type attribute struct {
	form      form
	rule      rule
	required  bool
	otherwise func(*decoder, *block) cty.Value
}

// block is a block of the source together with what may stand in it.
type block struct {
	schema *schema
	name   string
	src    *hclsyntax.Block
}

func (b *block) addr() string { return b.schema.kind + "." + b.name }

func (s *schema) attrNames() []string { return slices.Collect(maps.Keys(s.attrs)) }

func constant(v cty.Value) func(*decoder, *block) cty.Value {
	return func(*decoder, *block) cty.Value { return v }
}

func number(n int64) func(*decoder, *block) cty.Value { return constant(cty.NumberIntVal(n)) }

func span(t time.Duration) func(*decoder, *block) cty.Value {
	return constant(cty.StringVal(t.String()))
}

// schemas is the whole language, by block type. Probes have one entry for each kind.
func schemas() map[string]*schema {
	all := map[string]*schema{
		"pool":    poolSchema(),
		"cache":   cacheSchema(),
		"brake":   {attrs: map[string]attribute{"max_unhealthy": {rule: share, otherwise: constant(cty.NumberFloatVal(DefaultMaxUnhealthy))}}},
		"rollout": {attrs: map[string]attribute{"max_unavailable": {form: bare, rule: whole(1, MaxPoolGuests), otherwise: number(DefaultMaxUnavailable)}}},
		"guard":   {attrs: map[string]attribute{"max_retire": {rule: share, required: true}}},
		"lease": {attrs: map[string]attribute{
			"ttl": {rule: duration(MinLeaseTTL)},
			"max": {rule: duration(MinLeaseTTL)},
		}},
		"reuse": {attrs: map[string]attribute{
			"uses": {form: bare, rule: whole(1, 1_000_000)},
			"age":  {rule: duration(time.Second)},
		}},
		"hold": {attrs: map[string]attribute{
			"for": {rule: duration(time.Second), otherwise: span(DefaultHoldFor)},
			"max": {form: bare, rule: whole(0, MaxPoolGuests), otherwise: number(DefaultHoldMax)},
		}},
		"probe tcp": probeSchema(map[string]attribute{"port": {form: bare, rule: whole(1, 65535), otherwise: number(0)}}),
		"probe ssh": probeSchema(nil),
		"probe http": probeSchema(map[string]attribute{
			"port": {form: bare, rule: whole(1, 65535), required: true},
			"path": {rule: urlPath, otherwise: constant(cty.StringVal("/"))},
		}),
		"probe exec": probeSchema(map[string]attribute{"command": {form: words, rule: command, required: true}}),
	}
	for kind, s := range all {
		s.kind = kind
	}
	return all
}

func poolSchema() *schema {
	return &schema{blocks: []string{"probe", "brake", "rollout", "guard"}, attrs: map[string]attribute{
		"module":     {rule: text(1, maxPathLength), required: true},
		"max":        {form: bare, rule: whole(1, MaxPoolGuests), required: true},
		"spare":      {form: bare, rule: whole(0, MaxPoolGuests), otherwise: number(0)},
		"shard_size": {form: bare, rule: whole(1, MaxShardSize), otherwise: number(DefaultShardSize)},
		"labels":     {form: textMap, rule: labels, otherwise: constant(cty.MapValEmpty(cty.String))},
		"capacity":   {form: numberMap, rule: capacity, otherwise: constant(cty.MapValEmpty(cty.Number))},
		"variables":  {form: freeMap, rule: variables, otherwise: constant(cty.EmptyObjectVal)},
		"user_data":  {rule: text(0, MaxUserData), otherwise: constant(cty.StringVal(""))},
	}}
}

func cacheSchema() *schema {
	return &schema{blocks: []string{"lease", "reuse", "hold"}, attrs: map[string]attribute{
		"owner":   {rule: text(0, maxOwnerLength), otherwise: constant(cty.StringVal(""))},
		"pools":   {form: poolRefs, rule: poolList, required: true},
		"warm":    {form: bare, rule: whole(0, MaxPoolGuests), otherwise: number(0)},
		"size":    {form: bare, rule: whole(0, MaxPoolGuests), otherwise: defaultSize},
		"max":     {form: bare, rule: whole(1, MaxPoolGuests), otherwise: defaultMax},
		"enabled": {form: bare, rule: yesNo, otherwise: constant(cty.True)},
		"prepare": {rule: script},
		"reset":   {rule: script},
	}}
}

func probeSchema(own map[string]attribute) *schema {
	attrs := map[string]attribute{
		"every":    {rule: duration(time.Second), otherwise: span(DefaultProbeEvery)},
		"timeout":  {rule: duration(time.Millisecond)},
		"failures": {form: bare, rule: whole(1, 1000), otherwise: number(DefaultProbeFailures)},
	}
	maps.Copy(attrs, own)
	return &schema{attrs: attrs}
}

func defaultSize(d *decoder, b *block) cty.Value { return d.attr(b, "max", b.src.DefRange()) }

// defaultMax is what the cache's pools may have together.
func defaultMax(d *decoder, b *block) cty.Value {
	sum, ok := d.poolsMax(b)
	if !ok {
		return cty.DynamicVal
	}
	return cty.NumberIntVal(int64(sum))
}
