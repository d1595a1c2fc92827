-- beat.lua: notes for some caches that Greenroom and Redis are there, and tells in which of them a sweep has something to do: by
-- time alone nothing comes about in most of them for long. It stands alone and uses the keys of core.lua.
-- KEYS   the base of each cache; only one in a Redis Cluster, where a script must keep to one slot
-- ARGV   1 gap ms  2 retention of ended leases ms  3 most ended leases kept; see sweep.lua
-- Result the places of those caches in KEYS, from 1
-- Invariant: after a gap nothing is noted, so that the sweep sees the gap, too.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local text = string.format('%.0f', now)
local ends = { ':patience', ':holds', ':quarantine' }

-- passed says that the first of a sorted set has come due.
local function passed(key)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) <= now
end

local function due(base)
  local last = tonumber(redis.call('GET', base .. ':swept') or '0')
  if last == 0 or now - last > tonumber(ARGV[1]) then return true end
  redis.call('SET', base .. ':swept', text)
  for _, key in ipairs(ends) do
    if passed(base .. key) then return true end
  end
  for _, pool in ipairs(redis.call('SMEMBERS', base .. ':pools')) do
    if passed(base .. ':in:' .. pool .. ':leased') then return true end
  end
  local oldest = redis.call('LINDEX', base .. ':over', 0) or ''
  return redis.call('ZCARD', base .. ':queue') > 0 or redis.call('LLEN', base .. ':over') > tonumber(ARGV[3])
    or tonumber(string.match(oldest, '^%d+') or now) < now - tonumber(ARGV[2])
end

local found = {}
for i, base in ipairs(KEYS) do
  if due(base) then found[#found + 1] = i end
end
return found
