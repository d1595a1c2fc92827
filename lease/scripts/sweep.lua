-- sweep.lua: what time brings about in one cache: leases expire, requests lapse, holds and quarantines end, an override ends,
-- old records go. At most ARGV[1] of each kind, so that a call stays short; the caller comes again while the second result is 1. Only
-- after a gap all deadlines are moved at once.
-- ARGV   1 batch  2 gap ms: when the last sweep is longer ago, nobody could renew  3 grace ms given then
--        4 retention of ended leases ms  5 most ended leases kept
-- Result ok, more (1 or 0), ids of the leases that changed
-- Invariant: time in which Greenroom or Redis was away never ends a lease or a request.
local batch, grace = tonumber(ARGV[1]), now + tonumber(ARGV[3])
local changed, more = {}, 0
write(base .. ':deadlines')
local last = tonumber(redis.call('GET', base .. ':swept') or '0')
redis.call('SET', base .. ':swept', now)
if last > 0 and now - last > tonumber(ARGV[2]) then
  voided = true
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', base .. ':deadlines', '-inf', grace)) do
    redis.call('ZADD', base .. ':deadlines', grace, id)
    local l = lease_of(id)
    if l then
      l.deadline = as_text(grace)
      write_lease(l)
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
for _, id in ipairs(due(':deadlines')) do
  local l = lease_of(id)
  if l then
    local _, handed = finish(id, l.text, l.guest, 'expired', '', 'greenroom', {})
    if handed then changed[#changed + 1] = handed end
  else
    redis.call('ZREM', base .. ':deadlines', id)
  end
  changed[#changed + 1] = id
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
-- forget takes records of ended leases away, and their idempotency keys with them.
local function forget(ids)
  if #ids == 0 then return end
  local keys = {}
  for i, id in ipairs(ids) do keys[i] = lease_key(id) end
  redis.call('DEL', unpack(keys))
  redis.call('ZREM', base .. ':ended', unpack(ids))
end
write(base .. ':ended')
forget(redis.call('ZRANGEBYSCORE', base .. ':ended', '-inf', now - tonumber(ARGV[4]), 'LIMIT', 0, batch))
local over = redis.call('ZCARD', base .. ':ended') - tonumber(ARGV[5])
if over > 0 then forget(redis.call('ZRANGE', base .. ':ended', 0, math.min(over, batch) - 1)) end
if over > batch then more = 1 end
return { 'ok', more, changed }
