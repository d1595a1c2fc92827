package main

// team is for who wants a guest: can I get one, and how long do I wait?
func team() Dashboard {
	b := newBoard("greenroom-team", "Greenroom: can I get a guest?",
		"For teams: whether a guest is ready, how long requests wait, and what became of leases. Choose your cache above.", cache)
	b.row("Can I get a guest now?",
		table("Caches", "One line for each cache. Now: a request is granted at once. Wait: it stands in line until a guest is released or made. Off: an admin has disabled the cache.",
			"cache", []string{"a guest", "shelved", "kept warm", "leased", "waiting", "oldest waits", "held"},
			column(`once(greenroom_cache_enabled{CACHE}) * (1 + (sum by (cache) (once(greenroom_guests{CACHE,state="shelved"})) > bool 0))`),
			column(`sum by (cache) (once(greenroom_guests{CACHE,state="shelved"}))`),
			column(`once(greenroom_cache_warm{CACHE})`),
			column(`once(greenroom_leases{CACHE})`),
			column(`once(greenroom_queue_length{CACHE})`),
			column(`once(greenroom_queue_oldest_seconds{CACHE})`),
			column(`sum by (cache) (once(greenroom_guests{CACHE,state="held"}))`)).
			field("a guest", Property{"mappings", []Mapping{mapping([]Word{{Text: "off", Color: bad}, {Text: "wait", Color: warn}, {Text: "now", Color: good}})}},
				Property{"custom.cellOptions", object{"type": "color-background", "mode": "basic"}}).
			field("oldest waits", Property{"unit", seconds}),
		stat("Shelved now", "Guests that are ready for you this moment.", now("", `sum(once(greenroom_guests{CACHE,state="shelved"}))`)).
			steps(warn, at(1, good)).empty("no cache"),
		stat("Waiting now", "Requests in line. Yours comes after them, unless another pool suits it.", now("", `sum(once(greenroom_queue_length{CACHE}))`)).
			steps(good, at(1, warn)).empty("no cache"),
		stat("Granted at once", "Of the leases granted in the time shown: those that did not have to wait.",
			now("", `sum(once(increase(greenroom_cache_hits_total{CACHE}[$__range]))) / (sum(once(increase(greenroom_cache_hits_total{CACHE}[$__range]))) + sum(once(increase(greenroom_cache_misses_total{CACHE}[$__range])))) >= 0`)).
			unit(ratio).whole().steps(bad, at(0.5, warn), at(0.9, good)).empty("no leases"),
		stat("19 of 20 waited at most", "The wait that 95 % of the leases granted in the time shown did not exceed.",
			now("", `histogram_quantile(0.95, sum by (le) (increase(greenroom_lease_wait_seconds_bucket{CACHE}[$__range]))) >= 0`)).
			unit(seconds).steps(good, at(30, warn), at(queueTarget, bad)).empty("no leases"),
	)
	b.row("How long do I wait?",
		graph("Wait until granted", "Half of the leases waited no longer than the median, 95 % no longer than the other line. Gaps: nobody asked.",
			events("{{cache}}: median", quantile(0.5, "cache", `greenroom_lease_wait_seconds_bucket{CACHE}`)),
			events("{{cache}}: 95 %", quantile(0.95, "cache", `greenroom_lease_wait_seconds_bucket{CACHE}`))).
			unit(seconds).size(12, 8).empty("no leases"),
		graph("Granted at once", "The share of leases that found a guest on the shelf. A low one asks for a higher warm in the cache's block.",
			events("{{cache}}", `once(rate(greenroom_cache_hits_total{CACHE}[$__rate_interval])) / (once(rate(greenroom_cache_hits_total{CACHE}[$__rate_interval])) + once(rate(greenroom_cache_misses_total{CACHE}[$__rate_interval]))) >= 0`)).
			share().size(12, 8).empty("no leases"),
		graph("Shelved, and to be kept warm", "While the shelf is below its mark, guests are being made. At zero, requests wait.",
			series("{{cache}}: shelved", `sum by (cache) (once(greenroom_guests{CACHE,state="shelved"}))`),
			series("{{cache}}: warm", `once(greenroom_cache_warm{CACHE})`)).stepped().unit(number).whole(),
		graph("Waiting", "Requests in line.", series("{{cache}}", `once(greenroom_queue_length{CACHE})`)).stepped().unit(number).whole(),
		graph("The oldest waits for", "How long the head of the line has waited. The dashed line is where somebody is called.",
			series("{{cache}}", `once(greenroom_queue_oldest_seconds{CACHE})`)).unit(seconds).limit(at(queueTarget, bad)),
	)
	b.row("My leases and holds",
		graph("Leases", "Guests in the hands of jobs.", series("{{cache}}", `once(greenroom_leases{CACHE})`)).stepped().unit(number).whole(),
		graph("How leases ended", "Released: given back. Expired: no heartbeat came in time, or the longest time was over. Timed out, abandoned, cancelled: never granted.",
			events("{{how}}", `sum by (how) (once(increase(greenroom_leases_ended_total{CACHE}[$__rate_interval]))) > 0`)).bars().unit(number).empty("none ended"),
		graph("Where guests came from", "Shelf: it was ready. Spare: it had to be prepared. New: it had to be made.",
			events("{{source}}", `sum by (source) (increase(greenroom_lease_wait_seconds_count{CACHE}[$__rate_interval])) > 0`)).bars().unit(number).empty("no leases"),
		graph("Length of leases", "From the grant to the end.",
			events("{{cache}}: median", quantile(0.5, "cache", `greenroom_lease_seconds_bucket{CACHE}`)),
			events("{{cache}}: 95 %", quantile(0.95, "cache", `greenroom_lease_seconds_bucket{CACHE}`))).
			unit(seconds).size(12, 8).empty("no leases"),
		graph("Held for diagnosis", "Guests kept aside. They count against the cache's max: release what you no longer need.",
			series("{{cache}}", `sum by (cache) (once(greenroom_guests{CACHE,state="held"}))`)).stepped().unit(number).whole().size(12, 8),
	)
	return b.Dashboard
}
