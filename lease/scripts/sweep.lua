-- sweep.lua: what time brings about in one cache: leases expire, requests lapse, holds and quarantines end, an override ends,
-- old records go. At most ARGV[1] of each kind, and of the leases of each pool, so that a call stays short; the caller comes again while
-- the second result is 1. Only after a gap all deadlines are moved at once.
-- ARGV   1 batch  2 gap ms: when the last sweep is longer ago, nobody could renew  3 grace ms given then
--        4 retention of ended leases ms  5 most ended leases kept
-- Result ok, more (1 or 0), ids of the leases that changed
-- Invariant: time in which Greenroom or Redis was away never ends a lease or a request.
local batch, grace = tonumber(ARGV[1]), now + tonumber(ARGV[3])
local changed, more = {}, 0
local leased = {}
for _, pool in ipairs(redis.call('SMEMBERS', base .. ':pools')) do leased[#leased + 1] = ':in:' .. pool .. ':leased' end

-- lease_on is the lease that a guest is under, or nil.
local function lease_on(name)
  local _, _, _, id = state_of(redis.call('HGET', guest_key(name), 'state'))
  local l = id and lease_of(id)
  return l and l.phase == 'active' and l.guest == name and l or nil
end

local last = tonumber(redis.call('GET', base .. ':swept') or '0')
redis.call('SET', base .. ':swept', now)
if last > 0 and now - last > tonumber(ARGV[2]) then
  voided = true
  for _, key in ipairs(leased) do
    write(base .. key)
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', base .. key, '-inf', grace)) do
      local l = lease_on(name)
      if l and tonumber(l.deadline) < grace then
        l.deadline = as_text(grace)
        write_lease(l)
      end
      redis.call('ZADD', base .. key, grace, name)
    end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', base .. ':patience', '-inf', grace)) do
    redis.call('ZADD', base .. ':patience', grace, id)
  end
end
local function due(key)
  write(base .. key)
  local list = redis.call('ZRANGEBYSCORE', base .. key, '-inf', '(' .. now, 'LIMIT', 0, batch)
  if #list == batch then more = 1 end
  return list
end
for _, id in ipairs(due(':patience')) do
  local l = lease_of(id)
  lapse(l or { id = id })
  changed[#changed + 1] = id
end
for _, key in ipairs(leased) do
  for _, name in ipairs(due(key)) do
    local l = lease_on(name)
    local deadline = l and tonumber(l.deadline) or grace -- nobody knows whose a guest without a lease is
    if deadline >= now then -- it was renewed, or came with another lease
      redis.call('ZADD', base .. key, deadline, name)
    else
      local _, handed = finish(l.id, l.text, name, 'expired', '', 'greenroom', {})
      if handed then changed[#changed + 1] = handed end
      changed[#changed + 1] = l.id
    end
  end
end
for _, name in ipairs(due(':holds')) do
  local g = guest_of(name)
  if g then move(g, 'tainted', 'greenroom', 'hold_over') else redis.call('ZREM', base .. ':holds', name) end
end
for _, name in ipairs(due(':quarantine')) do
  local g = guest_of(name)
  if g then move(g, 'tainted', 'greenroom', 'quarantine_over') else redis.call('ZREM', base .. ':quarantine', name) end
end
local p = policy()
if enabled(p) then
  for _, pool in ipairs(split(p.pools)) do
    while waiting(pool) > 0 do
      local name = top(pool)
      local id = name and hand_over(guest_of(name), p, 'shelf')
      if not id then break end
      changed[#changed + 1] = id
    end
  end
end
write_over() -- and the oldest records go, with their idempotency keys
local surplus, forgotten = redis.call('LLEN', base .. ':over') - tonumber(ARGV[5]), {}
local most = 5 * batch -- to forget costs little
for i, entry in ipairs(redis.call('LRANGE', base .. ':over', 0, most - 1)) do
  local space = string.find(entry, ' ', 1, true)
  if i > surplus and tonumber(string.sub(entry, 1, space - 1)) >= now - tonumber(ARGV[4]) then break end
  forgotten[i] = lease_key(string.sub(entry, space + 1))
end
if #forgotten > 0 then
  redis.call('DEL', unpack(forgotten))
  redis.call('LTRIM', base .. ':over', #forgotten, -1)
end
if #forgotten == most then more = 1 end
return { 'ok', more, changed }
