-- acquire.lua: ask for a guest of the cache. Granted at once from the shelf (a hit), or queued (a miss at its grant).
-- ARGV   1 id  2 holder  3 owner  4 pools (comma list, in order of preference)  5 ttl ms  6 cap ms  7 wait ms (-1 for as long
--        as it is asked for, 0 not at all)  8 patience ms  9 idempotency key  10 fingerprint  11 public key  12 most in queue
--        13 the pool whose spares these are (empty: a named cache)
-- Result ok, lease, position, "replayed" or ""  |  replay | none_ready | queue_full | no_policy
-- Invariant: nobody is granted a guest of a pool for which somebody waits.
local id, idem = ARGV[1], ARGV[9]
if idem ~= '' then
  local seen = redis.call('HGET', base .. ':idem', idem)
  local old = seen and lease_of(seen)
  if old then
    if old.fingerprint ~= ARGV[10] then return { 'replay' } end
    return view('ok', seen, 'replayed')
  end
end
if lease_of(id) then return view('ok', id) end -- sent again, because the answer was lost
local p = policy()
if not p then return { 'no_policy' } end
local wait, patience = tonumber(ARGV[7]), tonumber(ARGV[8])
local l = { id = id, holder = ARGV[2], pools = ARGV[4], ttl = ARGV[5], cap_ms = ARGV[6] }
local serving = enabled(p)
local chosen
for _, pool in ipairs(split(ARGV[4])) do
  if serving and redis.call('ZCARD', base .. ':queue:' .. pool) == 0 then
    local name = redis.call('ZRANGE', index(pool, 'shelved'), -1, -1)[1]
    if name then chosen = guest_of(name) break end
  end
end
if not chosen then
  if wait == 0 then return { 'none_ready' } end
  if redis.call('ZCARD', base .. ':queue') >= tonumber(ARGV[12]) then return { 'queue_full' } end
end
redis.call('HSET', lease_key(id), 'id', id, 'holder', ARGV[2], 'owner', ARGV[3], 'phase', 'queued', 'pools', ARGV[4],
  'ttl', ARGV[5], 'cap_ms', ARGV[6], 'created', now, 'idem', idem, 'fingerprint', ARGV[10], 'public_key', ARGV[11],
  'wait_until', wait > 0 and now + wait or 0, 'patience', patience)
if idem ~= '' then redis.call('HSET', base .. ':idem', idem, id) end
if chosen then
  grant(l, chosen, chosen.pool == ARGV[13] and 'spare' or 'shelf', true)
else
  local number = redis.call('INCR', base .. ':seq')
  redis.call('ZADD', base .. ':queue', number, id)
  for _, pool in ipairs(split(ARGV[4])) do redis.call('ZADD', base .. ':queue:' .. pool, number, id) end
  local lapse = now + patience
  if wait > 0 then lapse = math.min(lapse, now + wait) end
  redis.call('ZADD', base .. ':patience', lapse, id)
end
return view('ok', id)
