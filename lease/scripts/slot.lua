-- slot.lua: claim the lowest free slot of a pool for a cache. KEYS[1] is the base of the pool.
-- ARGV   1 max of the pool  2 cache  3 slot wanted (0: the lowest free one)  4 incarnation known for it (0: the next one)
--        5 shard of its guest
-- Result ok, slot, incarnation  |  full | conflict (the slot that was asked for is another cache's) | no_policy
-- Invariant: never more slots taken than max, and none where no fleet is in force: a store that was lost does not know which slots have
-- machines. A slot that was asked for exists already: it is exempt.
local want = tonumber(ARGV[3])
if want == 0 then
  if not policy() then return { 'no_policy' } end
  if redis.call('HLEN', base .. ':slots') >= tonumber(ARGV[1]) then return { 'full' } end
  want = tonumber(redis.call('GET', base .. ':lowest') or '1') -- no slot below it is free
  while redis.call('HEXISTS', base .. ':slots', want) == 1 do want = want + 1 end
  redis.call('SET', base .. ':lowest', want + 1)
elseif (redis.call('HGET', base .. ':slots', want) or ARGV[2]) ~= ARGV[2] then
  return { 'conflict' }
end
local incarnation = tonumber(ARGV[4])
if incarnation == 0 then incarnation = tonumber(redis.call('HGET', base .. ':incarnations', want) or '0') + 1 end
redis.call('HSET', base .. ':slots', want, ARGV[2])
shard_slot(want, ARGV[5])
redis.call('HSET', base .. ':incarnations', want, incarnation)
return { 'ok', want, incarnation }
