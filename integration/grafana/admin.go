package main

import "fmt"

// states has each state's colour, in the order in which they are stacked: what is of use to somebody below, what is in the
// making above it, what is in trouble on top. A state has this colour wherever it is drawn.
var states = []struct{ name, colour string }{
	{"leased", "#1F60C4"},
	{"shelved", "#37872D"},
	{"resetting", "#8AB8FF"},
	{"preparing", "#96D98D"},
	{"booting", "#C8F2C2"},
	{"provisioning", "#FFEE52"},
	{"planned", "#B7B7B7"},
	{"held", "#8F3BB8"},
	{"quarantined", "#CA95E5"},
	{"retiring", "#7A7A7A"},
	{"replacing", "#FFA6B0"},
	{"tainted", "#FF780A"},
	{"failed", "#C4162A"},
}

// wanted is what the chosen pools should have: what is in use, what is asked for and what is to be kept warm, up to their max.
// A cache that draws from several pools counts whole with each of them.
const wanted = `sum(once(greenroom_guests{POOL,state=~"leased|resetting|held|quarantined"}))` +
	` + sum((once(greenroom_cache_warm{SERVER}) * once(greenroom_cache_enabled{SERVER}) + once(greenroom_queue_length{SERVER})) and on (cache) once(greenroom_guests{POOL}))` +
	` < sum(once(greenroom_pool_max{POOL})) or sum(once(greenroom_pool_max{POOL}))`

// orders are guests that wait for a run to take them up.
const orders = `sum by (pool) (once(greenroom_guests{POOL,state=~"planned|tainted|failed"}))`

func stock(title, about string) Panel {
	var targets []Target
	for _, s := range states {
		targets = append(targets, series(s.name, fmt.Sprintf(`sum(once(greenroom_guests{POOL,state=%q}))`, s.name)))
	}
	targets = append(targets, series("desired", wanted), series("max", `sum(once(greenroom_pool_max{POOL}))`))
	p := graph(title, about, targets...).stacked().stepped().unit(number).whole()
	for _, s := range states {
		p = p.field(s.name, colour(s.colour))
	}
	return p.mark("desired", 6, 6).mark("max")
}

func runs(title, about string) Panel {
	return graph(title, about, events("{{op}}: {{result}}", `sum by (op, result) (increase(greenroom_terraform_runs_total{POOL}[$__rate_interval])) > 0`)).
		bars().unit(number).empty("no runs")
}

var conditionColours = map[string]string{"Ready": "#37872D", "Reconciling": "#1F60C4", "Waiting": "#FF780A", "Stalled": "#C4162A"}

func shards(title, about string) Panel {
	p := graph(title, about, series("{{condition}}", `sum by (condition) (once(greenroom_shards{POOL}))`)).stepped().unit(number).whole()
	for _, name := range []string{"Ready", "Reconciling", "Waiting", "Stalled"} {
		p = p.field(name, colour(conditionColours[name]))
	}
	return p
}

// admin is for who runs Greenroom: is it well, and if not, what is wrong?
func admin() Dashboard {
	b := newBoard("greenroom-admin", "Greenroom: how it runs",
		"For admins: what is wrong, stock and queues, reconciling and Terraform, the watchdog, specs, the server. Each pool has a row of its own at the end.", pool, cache)
	glance(b)
	b.row("Stock and queues",
		stock("Stock by state", "Guests of the chosen pools. Dashed: what they should have, which is what is in use, asked for and to be kept warm. Solid: max.").size(12, 10),
		graph("Missing from the shelf", "How far each cache is below its warm mark. Short dips are the work of jobs; what stays up needs more max, faster guests, or a look at the runs.",
			series("{{cache}}", `clamp_min(once(greenroom_cache_warm{CACHE}) * once(greenroom_cache_enabled{CACHE}) - sum by (cache) (once(greenroom_guests{CACHE,state="shelved"})), 0)`)).
			stepped().unit(number).whole().size(6, 10),
		graph("Requests waiting", "The length of each queue.", series("{{cache}}", `once(greenroom_queue_length{CACHE})`)).
			stepped().unit(number).whole().size(6, 5),
		graph("The oldest waits for", "The head of each queue. The alert comes at the dashed line.", series("{{cache}}", `once(greenroom_queue_oldest_seconds{CACHE})`)).
			unit(seconds).limit(at(queueTarget, bad)).size(6, 5),
	)
	reconciling(b)
	watching(b)
	b.each("pool", "Pool $pool",
		stock("Stock of $pool by state", "Dashed: what the pool should have (a cache that draws from several pools counts whole with each). Solid: max.").size(12, 9),
		shards("Shards of $pool", "Stalled ones need you; waiting ones are tried again by themselves.").size(6, 9),
		runs("Terraform runs of $pool", "By operation and result. preview: those of plans, which change nothing.").size(6, 9),
	)
	return b.Dashboard
}

func glance(b *board) {
	b.row("Is all well?",
		stat("Server", "Whether Prometheus reaches every chosen server.", now("", `min(up{job="greenroom",instance=~"$server"})`)).
			words(Word{Text: "down", Color: bad}, Word{Text: "up", Color: good}).empty("none"),
		stat("Store", "Whether Redis, or the embedded store, answers. While it is away no lease is granted, and none ends.",
			now("", `min(greenroom_store_up{SERVER})`)).words(Word{Text: "away", Color: bad}, Word{Text: "answers", Color: good}),
		stat("Specs", "Whether the newest revision is the one in force.", now("", `min(greenroom_spec_valid{SERVER})`)).
			words(Word{Text: "fault or held", Color: bad}, Word{Text: "in force", Color: good}),
		stat("Fault of the specs, since", "Why the newest revision is not in force, and for how long: greenroom status has the whole story.",
			now("{{reason}} {{revision}}", `time() - max by (reason, revision) (greenroom_spec_fault_since_seconds{SERVER}) or on () vector(0)`)).
			unit(seconds).named("value_and_name").steps(good, at(1, bad)),
		stat("Revision", "That in force.", now("{{revision}}", `max by (revision) (greenroom_spec_info{SERVER})`)).named("name"),
		stat("The oldest waits for", "The longest wait at the head of a queue.", now("", `max(once(greenroom_queue_oldest_seconds{CACHE})) or on () vector(0)`)).
			unit(seconds).steps(good, at(30, warn), at(queueTarget, bad)),
		stat("Watchdog's brake", "Pools in which so much is unhealthy that nobody is tainted any more. Look at the network before you look at the guests.",
			now("", `sum(once(greenroom_watchdog_brake{POOL})) or on () vector(0)`)).steps(good, at(1, bad)).empty("0"),
		stat("Deaths", "Guests found dead in the time shown.", now("", `sum(once(increase(greenroom_guest_deaths_total{POOL}[$__range]))) or on () vector(0)`)).
			whole().steps(good, at(0.5, warn)),
		stat("Pools stalled", "They wait for a human: a module can't be read or broke its contract, a guard refused a plan, a state changed under a shard.",
			now("", `sum(once(greenroom_pool_condition{POOL,condition="Stalled"})) or on () vector(0)`)).steps(good, at(1, bad)),
		stat("Shards waiting", "Their last run failed; they are tried again by themselves, at most 5 minutes apart.",
			now("", `sum(once(greenroom_shards{POOL,condition="Waiting"})) or on () vector(0)`)).steps(good, at(1, warn)),
		stat("Breaker", "Pools whose runs all wait, because five in a row of their module have failed whole: look at the provider.",
			now("", `sum(once(greenroom_terraform_breaker{POOL})) or on () vector(0)`)).steps(good, at(1, bad)),
		stat("Failed runs", "Terraform processes that failed in the time shown, previews aside.",
			now("", `sum(increase(greenroom_terraform_runs_total{POOL,op!="preview",result="failed"}[$__range])) or on () vector(0)`)).
			whole().steps(good, at(0.5, warn)),
	)
}

func reconciling(b *board) {
	b.row("Reconciling",
		graph("Orders that wait", "Guests that no run has taken up yet: planned ones, tainted ones, and failed ones before their next try.",
			series("{{pool}}", orders)).stepped().unit(number).whole(),
		graph("Reconcile lag", "For how long a pool has had orders waiting without a break (an hour means an hour or more), and how long ago the reconciler last made a whole pass, which is every 10 seconds.",
			series("{{instance}}: last pass", `time() - (greenroom_reconcile_last_pass_timestamp_seconds{SERVER} > 0 or process_start_time_seconds{job="greenroom",instance=~"$server"})`),
			series("{{pool}}: orders", "("+orders+" == 0) or time() - max_over_time(timestamp("+orders+" == 0)[1h:30s]) or 30 * count_over_time("+orders+"[1h:30s])")).
			unit(seconds).limit(at(queueTarget, bad)),
		shards("Shards by condition", "Ready and reconciling are normal. Waiting ones are tried again by themselves, stalled ones need you."),
		runs("Terraform runs", "Processes by operation and result. preview: those of plans, which change nothing."),
		graph("Failed runs by pool", "Previews aside. The reason is in greenroom pool show POOL.",
			events("{{pool}}", `sum by (pool) (increase(greenroom_terraform_runs_total{POOL,op!="preview",result="failed"}[$__rate_interval])) or 0 * once(greenroom_pool_max{POOL})`)).
			bars().unit(number),
		graph("Length of Terraform runs", "By operation. Waiting for the provider is most of an apply.",
			events("{{op}}: median", quantile(0.5, "op", `greenroom_terraform_run_seconds_bucket{POOL}`)),
			events("{{op}}: 95 %", quantile(0.95, "op", `greenroom_terraform_run_seconds_bucket{POOL}`))).
			unit(seconds).empty("no runs"),
	)
}

func watching(b *board) {
	b.row("Watchdog",
		strips("Brake", "On: past the pool's max_unhealthy nobody is tainted, because it is more likely the network than the guests.",
			[]Word{{Text: "off", Color: good}, {Text: "on", Color: bad}}, series("{{pool}}", `once(greenroom_watchdog_brake{POOL})`)),
		graph("Failed probes", "Of all probes that gave an answer. Single ones are normal; a guest is tainted after several in a row.",
			series("{{pool}}", `sum by (pool) (rate(greenroom_probes_total{POOL,result="failed"}[$__rate_interval])) / sum by (pool) (rate(greenroom_probes_total{POOL,result=~"ok|failed"}[$__rate_interval]))`)).
			share().empty("no probes"),
		graph("Deaths", "Guests found dead, by why.", events("{{pool}}: {{reason}}", `once(increase(greenroom_guest_deaths_total{POOL}[$__rate_interval])) > 0`)).
			bars().unit(number).empty("none died"),
	)
	b.row("Specs and plans",
		strips("Specs", "Whether the newest revision seen is the one in force.",
			[]Word{{Text: "fault or held", Color: bad}, {Text: "in force", Color: good}}, series("{{instance}}", `min by (instance) (greenroom_spec_valid{SERVER})`)).size(12, 6),
		graph("Plans", "By phase. Many that are being made at once wait for Terraform.", series("{{phase}}", `sum by (phase) (greenroom_plans{SERVER})`)).
			stepped().unit(number).whole().size(12, 6),
	)
	b.row("The server",
		graph("Calls", "Answers of the API by status. 503: the store is away. 429 and 403: look at who calls.",
			series("{{code}}", `sum by (code) (rate(greenroom_http_request_seconds_count{SERVER}[$__rate_interval]))`)).stacked().unit(perSec),
		graph("Time to answer (95 %)", "By route. Waiting for a lease or a plan is part of it: those routes are slow because their callers want to wait.",
			series("{{route}}", quantile(0.95, "route", `greenroom_http_request_seconds_bucket{SERVER}`))).unit(seconds),
		graph("Memory and CPU", "Of the server itself. Terraform and spec readers are processes of their own.",
			series("{{instance}}: memory", `process_resident_memory_bytes{job="greenroom",instance=~"$server"}`),
			series("{{instance}}: CPU", `rate(process_cpu_seconds_total{job="greenroom",instance=~"$server"}[$__rate_interval])`)).
			unit(memory).cpu(),
	)
}

// cpu puts the series of the processor on an axis of their own.
func (p Panel) cpu() Panel {
	p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, Override{
		Matcher{"byFrameRefID", "B"}, []Property{{"unit", ratio}, {"custom.axisPlacement", "right"}},
	})
	return p
}
