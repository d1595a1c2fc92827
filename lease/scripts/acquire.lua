-- acquire.lua: ask for a guest of the cache. Granted at once from the shelf (a hit), or queued (a miss at its grant).
-- ARGV   1 wish; see lease_of  2 owner  3 wait ms (-1 for as long as it is asked for, 0 not at all)  4 most in queue
--        5 the pool whose spares these are (empty: a named cache)
-- Result hit, lease, address of the guest  |  ok, lease, position, "replayed" or ""
--        |  replay | none_ready | queue_full | no_policy
-- Invariant: nobody is granted a guest of a pool for which somebody waits.
local wish = ARGV[1]
local id, holder, pools, ttl, cap_ms, patience, idem, fingerprint = string.match(wish, wish_pattern)
local old = lease_of(id) -- sent again, because the answer was lost, or a key that was used before
if old then
  if old.fingerprint ~= fingerprint then return { 'replay' } end
  return view('ok', id, idem ~= '' and 'replayed')
end
local p = policy()
if not p then return { 'no_policy' } end
local wait = tonumber(ARGV[3])
local l = { id = id, owner = ARGV[2], holder = holder, pools = pools, ttl = ttl, cap_ms = cap_ms, created = stamp, wait_until = '0', wish = wish,
  text = '', phase = 'queued', guest = '', incarnation = '', granted = '', deadline = '', cap = '', source = '', hit = '' }
local serving = enabled(p)
for _, pool in ipairs(split(pools)) do
  local name = serving and waiting(pool) == 0 and top(pool)
  if name then
    local v = redis.call('HMGET', guest_key(name), 'incarnation', 'state', 'address')
    local _, _, uses = state_of(v[2])
    local g = { name = name, pool = pool, state = 'shelved', incarnation = v[1], uses = uses, lease = '' }
    grant(l, g, pool == ARGV[5] and 'spare' or 'shelf', true)
    return { 'hit', l.text, v[3] or '' }
  end
end
if wait == 0 then return { 'none_ready' } end
if redis.call('ZCARD', base .. ':queue') >= tonumber(ARGV[4]) then return { 'queue_full' } end
voided = true
if wait > 0 then l.wait_until = as_text(now + wait) end
write_lease(l)
local number = redis.call('INCR', base .. ':seq')
redis.call('ZADD', base .. ':queue', number, id)
for _, pool in ipairs(split(pools)) do redis.call('ZADD', base .. ':queue:' .. pool, number, id) end
queues = {}
local lapse = now + tonumber(patience)
if wait > 0 then lapse = math.min(lapse, now + wait) end
redis.call('ZADD', base .. ':patience', lapse, id)
return view('ok', id)
