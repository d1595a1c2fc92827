package specs

import (
	"strconv"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// HCL writes the fleet as one spec file with every default spelled out. Read again, in a directory that has
// its scripts, it is the same fleet.
func (f *Fleet) HCL() []byte {
	file := hclwrite.NewEmptyFile()
	if f.Guard != nil {
		f.Guard.write(file.Body())
		file.Body().AppendNewline()
	}
	for _, p := range f.Pools {
		p.write(file.Body().AppendNewBlock("pool", []string{p.Name}).Body())
		file.Body().AppendNewline()
	}
	for _, c := range f.Caches {
		c.write(file.Body().AppendNewBlock("cache", []string{c.Name}).Body())
		file.Body().AppendNewline()
	}
	return hclwrite.Format(file.Bytes())
}

func (p *Pool) write(body *hclwrite.Body) {
	setText(body, "module", p.Module)
	setInt(body, "max", p.Max)
	setInt(body, "spare", p.Spare)
	setInt(body, "shard_size", p.ShardSize)
	labels, capacity := map[string]cty.Value{}, map[string]cty.Value{}
	for key, v := range p.Labels {
		labels[key] = cty.StringVal(v)
	}
	for key, v := range p.Capacity {
		capacity[key] = cty.NumberFloatVal(v)
	}
	body.SetAttributeValue("labels", cty.ObjectVal(labels))
	body.SetAttributeValue("capacity", cty.ObjectVal(capacity))
	body.SetAttributeValue("variables", fromJSON(p.Variables))
	setText(body, "user_data", p.UserData)
	for _, probe := range p.Probes {
		probe.write(body.AppendNewBlock("probe", []string{probe.Kind}).Body())
	}
	setShare(body.AppendNewBlock("brake", nil).Body(), "max_unhealthy", p.Brake.MaxUnhealthy)
	setInt(body.AppendNewBlock("rollout", nil).Body(), "max_unavailable", p.Rollout.MaxUnavailable)
	if p.Guard != nil {
		p.Guard.write(body)
	}
}

func (g *Guard) write(body *hclwrite.Body) {
	setShare(body.AppendNewBlock("guard", nil).Body(), "max_retire", g.MaxRetire)
}

func (p Probe) write(body *hclwrite.Body) {
	setDuration(body, "every", p.Every)
	setDuration(body, "timeout", p.Timeout)
	setInt(body, "failures", p.Failures)
	if p.Port > 0 {
		setInt(body, "port", p.Port)
	}
	if p.Path != "" {
		setText(body, "path", p.Path)
	}
	if len(p.Command) > 0 {
		words := make([]cty.Value, len(p.Command))
		for i, w := range p.Command {
			words[i] = cty.StringVal(w)
		}
		body.SetAttributeValue("command", cty.ListVal(words))
	}
}

func (c *Cache) write(body *hclwrite.Body) {
	setText(body, "owner", c.Owner)
	pools := make([]hclwrite.Tokens, len(c.Pools))
	for i, name := range c.Pools {
		pools[i] = hclwrite.TokensForTraversal(hcl.Traversal{hcl.TraverseRoot{Name: "pool"}, hcl.TraverseAttr{Name: name}})
	}
	body.SetAttributeRaw("pools", hclwrite.TokensForTuple(pools))
	setInt(body, "warm", c.Warm)
	setInt(body, "size", c.Size)
	setInt(body, "max", c.Max)
	body.SetAttributeValue("enabled", cty.BoolVal(c.Enabled))
	if c.Prepare.Path != "" {
		setText(body, "prepare", c.Prepare.Path)
	}
	if c.Reset.Path != "" {
		setText(body, "reset", c.Reset.Path)
	}
	lease := body.AppendNewBlock("lease", nil).Body()
	setDuration(lease, "ttl", c.Lease.TTL)
	setDuration(lease, "max", c.Lease.Max)
	reuse := body.AppendNewBlock("reuse", nil).Body()
	if c.Reuse.Uses > 0 {
		setInt(reuse, "uses", c.Reuse.Uses)
	}
	if c.Reuse.Age > 0 {
		setDuration(reuse, "age", c.Reuse.Age)
	}
	hold := body.AppendNewBlock("hold", nil).Body()
	setDuration(hold, "for", c.Hold.For)
	setInt(hold, "max", c.Hold.Max)
}

func setText(body *hclwrite.Body, name, s string) { body.SetAttributeValue(name, cty.StringVal(s)) }

func setInt(body *hclwrite.Body, name string, n int) {
	body.SetAttributeValue(name, cty.NumberIntVal(int64(n)))
}

func setDuration(body *hclwrite.Body, name string, t time.Duration) { setText(body, name, brief(t)) }

func setShare(body *hclwrite.Body, name string, fraction float64) {
	setText(body, name, strconv.FormatFloat(fraction*100, 'g', 15, 64)+"%")
}

func fromJSON(raw []byte) cty.Value {
	t, err := ctyjson.ImpliedType(raw)
	if err != nil {
		return cty.EmptyObjectVal
	}
	v, err := ctyjson.Unmarshal(raw, t)
	if err != nil {
		return cty.EmptyObjectVal
	}
	return v
}
