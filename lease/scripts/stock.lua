-- stock.lua: what some caches have, at a cost that does not grow with their guests.
-- It writes nothing and runs read-only, so that no store has to write it down. It stands without core.lua, whose clock a
-- read-only script may not ask everywhere.
-- KEYS   the base of each cache; only one in a Redis Cluster, where a script must keep to one slot
-- ARGV   the states to count, in order
-- Result for each cache: length of the queue, when its head came (ms), override, stats,
--        {pool, guests in each state …} for every pool that the cache draws from or ever had a guest of
local function stock(base)
  local head = redis.call('ZRANGE', base .. ':queue', 0, 0)[1]
  local text = head and redis.call('GET', base .. ':lease:' .. head)
  local came = text and string.match(text, '^' .. string.rep('[^\n]*\n', 13) .. '([^\n]*)') -- see lease_of
  local seen, counts = {}, {}
  local left = redis.call('SCARD', base .. ':guests') -- each is in one index: when all are found, the other indexes are empty
  local function tally(pool)
    if seen[pool] then return end
    seen[pool] = true
    local row = { pool }
    for i, state in ipairs(ARGV) do
      row[i + 1] = left > 0 and redis.call('ZCARD', base .. ':in:' .. pool .. ':' .. state) or 0
      left = left - row[i + 1]
    end
    counts[#counts + 1] = row
  end
  for pool in string.gmatch(redis.call('HGET', base .. ':policy', 'pools') or '', '[^,]+') do tally(pool) end
  for _, pool in ipairs(redis.call('SMEMBERS', base .. ':pools')) do tally(pool) end
  return { redis.call('ZCARD', base .. ':queue'), came or '0',
    redis.call('HGETALL', base .. ':override'), redis.call('HGETALL', base .. ':stats'), counts }
end
local all = {}
for i, base in ipairs(KEYS) do all[i] = stock(base) end
return all
