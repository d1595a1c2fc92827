package specs

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// checkCache compares the numbers of a cache with each other and with its pools.
func (d *decoder) checkCache(b *block) {
	d.notAbove(b, "warm", "size", sumWarmOverSize, "The cache keeps warm = %d guests shelved, but at most size = %d stay on its shelf. Lower warm or raise size.")
	d.notAbove(b, "size", "max", sumSizeOverMax, "The cache shelves up to size = %d guests, but may have only max = %d in all. Lower size or raise max.")
	sum, ok := d.poolsMax(b)
	if longest := d.getter(b)("max"); ok && known(longest) && asInt(longest) > sum {
		d.report(d.rangeOf(b, "max"), sumMaxOverPools, "The cache may have max = %d guests, but its pools may have only %d together. Lower it, or raise the max of a pool.",
			asInt(longest), sum)
	}
}

// notAbove reports low > high. Either may be a default; the detail has a place for each number.
func (d *decoder) notAbove(b *block, low, high, summary, detail string) {
	lv, hv := d.getter(b)(low), d.getter(b)(high)
	if !known(lv) || !known(hv) || asInt(lv) <= asInt(hv) {
		return
	}
	diag := d.report(d.rangeOf(b, low), summary, detail, asInt(lv), asInt(hv))
	if src := b.src.Body.Attributes[high]; src != nil {
		diag.Context = around(*diag.Subject, src.SrcRange)
	}
}

// around is the range from one to the other, so that both are shown.
func around(a, b hcl.Range) *hcl.Range { return hcl.RangeOver(a, b).Ptr() }

// poolsMax is what the pools of a cache may have together; false when that can't be known.
func (d *decoder) poolsMax(b *block) (int, bool) {
	pools := d.getter(b)("pools")
	sum := 0
	for _, name := range asList(pools) {
		v := d.attr(d.blocks["pool"][name.AsString()], "max", b.src.DefRange())
		if !known(v) {
			return 0, false
		}
		sum += asInt(v)
	}
	return sum, known(pools)
}

// checkWarm reports caches that can never be warm together: for the pools of each cache, what they may have
// must be enough for their own spares and for every cache that draws from them alone.
func (d *decoder) checkWarm(f *Fleet) {
	for i, c := range f.Caches {
		room, spare, ok := supply(f, c)
		warm, others := demand(f, i)
		if ok && warm > 0 && warm+spare > room {
			d.report(d.rangeOf(d.blocks["cache"][c.Name], "warm"), sumWarmOverPools,
				"The guests of %s are at most %d together, but %d are to be kept warm by %s, and %d spare. Lower warm or spare, or raise the max of a pool.",
				strings.Join(c.Pools, ", "), room, warm, strings.Join(others, ", "), spare)
		}
	}
}

// supply is what the pools of c may have together, and how much of that they keep spare; false where
// its pools or their max are faulty.
func supply(f *Fleet, c *Cache) (room, spare int, ok bool) {
	for _, name := range c.Pools {
		p := f.Pool(name)
		if p.Max == 0 {
			return 0, 0, false
		}
		room += p.Max
		spare += p.Spare
	}
	return room, spare, len(c.Pools) > 0
}

// demand is what the caches that draw only from the pools of the i-th cache keep warm together, and their
// names; nothing where an earlier cache has the very same pools, so that no shortage is reported twice.
func demand(f *Fleet, i int) (warm int, names []string) {
	for j, other := range f.Caches {
		switch {
		case len(other.Pools) == 0 || !within(other.Pools, f.Caches[i].Pools):
		case j < i && within(f.Caches[i].Pools, other.Pools):
			return 0, nil
		default:
			warm += min(other.Warm, other.Size)
			names = append(names, other.Name)
		}
	}
	return warm, names
}

func within(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}
