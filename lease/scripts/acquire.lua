-- acquire.lua: ask for a guest of the cache. Granted at once from the shelf (a hit), or queued (a miss at its grant).
-- ARGV   1 id  2 holder  3 owner  4 pools (comma list, in order of preference)  5 ttl ms  6 cap ms  7 wait ms (-1 for as long
--        as it is asked for, 0 not at all)  8 patience ms  9 idempotency key  10 fingerprint  11 public key  12 most in queue
--        13 the pool whose spares these are (empty: a named cache)
-- Result hit, granted, deadline, cap, guest's name, source, guest  |  ok, lease, position, "replayed" or ""
--        |  replay | none_ready | queue_full | no_policy
-- Invariant: nobody is granted a guest of a pool for which somebody waits.
local id, idem = ARGV[1], ARGV[9]
if idem == '' then
  if redis.call('EXISTS', lease_key(id)) == 1 then return view('ok', id) end -- sent again, because the answer was lost
elseif redis.call('HSETNX', base .. ':idem', idem, id) == 0 then
  local seen = redis.call('HGET', base .. ':idem', idem)
  local old = lease_of(seen)
  if old then
    if old.fingerprint ~= ARGV[10] then return { 'replay' } end
    return view('ok', seen, 'replayed')
  end
  redis.call('HSET', base .. ':idem', idem, id)
end
local function refuse(code)
  if idem ~= '' then redis.call('HDEL', base .. ':idem', idem) end
  return { code }
end
local p = policy()
if not p then return refuse('no_policy') end
local wait, patience = tonumber(ARGV[7]), tonumber(ARGV[8])
local l = { id = id, holder = ARGV[2], pools = ARGV[4], ttl = ARGV[5], cap_ms = ARGV[6] }
local serving = enabled(p)
for _, pool in ipairs(split(ARGV[4])) do
  local name = serving and waiting(pool) == 0 and top(pool)
  if name then
    local v = redis.call('HMGET', guest_key(name), 'incarnation', 'uses', 'host', 'port', 'user', 'host_key')
    local g = { name = name, pool = pool, state = 'shelved', incarnation = v[1], uses = v[2] or '0' }
    local source = pool == ARGV[13] and 'spare' or 'shelf'
    local deadline, cap = grant(l, g, source, true, 'id', id, 'holder', ARGV[2], 'owner', ARGV[3], 'pools', ARGV[4], 'ttl', ARGV[5],
      'created', stamp, 'idem', idem, 'fingerprint', ARGV[10], 'public_key', ARGV[11])
    return { 'hit', stamp, deadline, cap, name, source, { v[1], id, v[3], v[4], v[5], v[6], '' } }
  end
end
if wait == 0 then return refuse('none_ready') end
if redis.call('ZCARD', base .. ':queue') >= tonumber(ARGV[12]) then return refuse('queue_full') end
redis.call('HSET', lease_key(id), 'id', id, 'holder', ARGV[2], 'owner', ARGV[3], 'phase', 'queued', 'pools', ARGV[4], 'ttl', ARGV[5],
  'cap_ms', ARGV[6], 'created', stamp, 'idem', idem, 'fingerprint', ARGV[10], 'public_key', ARGV[11],
  'wait_until', wait > 0 and now + wait or 0, 'patience', patience)
local number = redis.call('INCR', base .. ':seq')
redis.call('ZADD', base .. ':queue', number, id)
for _, pool in ipairs(split(ARGV[4])) do redis.call('ZADD', base .. ':queue:' .. pool, number, id) end
queues = {}
local lapse = now + patience
if wait > 0 then lapse = math.min(lapse, now + wait) end
redis.call('ZADD', base .. ':patience', lapse, id)
return view('ok', id)
