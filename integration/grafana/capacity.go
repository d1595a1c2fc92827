package main

import "fmt"

// capacity is for who decides what there should be: is it enough, is it too much?
func capacity() Dashboard {
	b := newBoard("greenroom-capacity", "Greenroom: is it enough?",
		"For planning: how long requests wait and why, how much of max is used, why guests go, and how long it takes to make one.", pool, cache)
	b.row("How long do requests wait?",
		waits("shelf", "A guest was on the shelf, or came back to it. Long waits here mean that every guest was leased: raise max."),
		waits("spare", "A spare of the pool had to be prepared. Long waits here are the prepare script's."),
		waits("new", "A guest had to be made. Raise warm where this happens often, and spare where several caches share a pool."),
		graph("Granted at once, and after waiting", "Leases granted. What had to wait is what warm is too low for.",
			events("at once", `sum(once(increase(greenroom_cache_hits_total{CACHE}[$__rate_interval])))`),
			events("after waiting", `sum(once(increase(greenroom_cache_misses_total{CACHE}[$__rate_interval])))`)).
			bars().unit(number).field("at once", colour("#37872D")).field("after waiting", colour("#FF780A")),
		graph("Queue at its longest", "The most requests that waited at once.",
			events("{{cache}}", `once(max_over_time(greenroom_queue_length{CACHE}[$__rate_interval]))`)).stepped().unit(number).whole(),
		graph("Idle on the shelf, at the least", "The fewest guests that were shelved. What never gets used is what warm and size could be lowered by.",
			events("{{cache}}", `min_over_time(sum by (cache) (once(greenroom_guests{CACHE,state="shelved"}))[$__rate_interval:])`)).
			stepped().unit(number).whole(),
	)
	b.row("How much is used?",
		graph("Guests, of max", "Every state counts. At 100 % nothing more can be made, and a replacement takes the place of its predecessor only after it.",
			series("{{pool}}", `sum by (pool) (once(greenroom_guests{POOL})) / once(greenroom_pool_max{POOL})`)).share().limit(at(0.9, warn)),
		graph("Leased, of max", "What jobs really use. Far below the other graph: warm and size keep more than is needed.",
			series("{{pool}}", `sum by (pool) (once(greenroom_guests{POOL,state="leased"})) / once(greenroom_pool_max{POOL})`)).share().limit(at(0.9, warn)),
		table("At the most, in the time shown", "The highest use of each pool, to hold beside its max.", "pool", []string{"max", "guests", "leased", "leased, of max"},
			column(`once(greenroom_pool_max{POOL})`),
			column(`max_over_time(sum by (pool) (once(greenroom_guests{POOL}))[$__range:$__interval])`),
			column(`max_over_time(sum by (pool) (once(greenroom_guests{POOL,state="leased"}))[$__range:$__interval])`),
			column(`max_over_time(sum by (pool) (once(greenroom_guests{POOL,state="leased"}))[$__range:$__interval]) / once(greenroom_pool_max{POOL})`)).
			field("leased, of max", Property{"unit", ratio}).size(8, 8),
	)
	b.row("How long are leases, and why do guests go?",
		heat("Length of leases", "From the grant to the end. Lines at the cache's ttl or longest time are jobs that never give back.",
			buckets(`sum by (le) (increase(greenroom_lease_seconds_bucket{CACHE}[$__rate_interval]))`)).empty("no leases"),
		graph("Removals by reason", "Guests retired from their cache. Excess: more than size. Age and uses: the reuse block. Outdated: a new revision. Forced: by hand.",
			events("{{reason}}", `sum by (reason) (once(increase(greenroom_cache_removals_total{CACHE}[$__rate_interval]))) > 0`)).bars().unit(number).empty("none went").size(8, 9),
		graph("Deaths by reason", "Guests that were found dead and replaced: work that jobs do not see, and that max must leave room for.",
			events("{{reason}}", `sum by (reason) (once(increase(greenroom_guest_deaths_total{POOL}[$__rate_interval]))) > 0`)).bars().unit(number).empty("none died").size(8, 9),
	)
	b.each("pool", "Pool $pool",
		heat("Time to ready in $pool", "From the order of a guest until it is ready. This is what a request waits when nothing is warm.",
			buckets(`sum by (le) (increase(greenroom_guest_ready_seconds_bucket{POOL}[$__rate_interval]))`)).empty("no new guests").size(12, 9),
		graph("Use of $pool", "Leased guests below, all guests above them, and max.",
			series("leased", `sum(once(greenroom_guests{POOL,state="leased"}))`),
			series("guests", `sum(once(greenroom_guests{POOL}))`),
			series("max", `sum(once(greenroom_pool_max{POOL}))`)).
			stepped().unit(number).whole().size(12, 9).field("leased", colour("#1F60C4")).field("guests", colour("#37872D")).mark("max"),
	)
	return b.Dashboard
}

func waits(from, about string) Panel {
	return heat("Wait: "+from, about, buckets(fmt.Sprintf(`sum by (le) (increase(greenroom_lease_wait_seconds_bucket{CACHE,source=%q}[$__rate_interval]))`, from))).
		empty("no leases")
}
