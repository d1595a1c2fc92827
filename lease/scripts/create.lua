-- create.lua: put a guest on record in this cache, in state planned; or, with fields of an existing machine, as found again.
-- ARGV   1 name  2 pool  3 slot  4 incarnation  5 max of the cache  6 actor  7 state (planned, preparing, quarantined)
--        8 until ms (quarantined only)  9... further fields, in pairs, of which the first two are cache and shard
-- Result ok, guest, lease that it was handed to  |  full | conflict (another machine of that name is on record) | no_policy
-- Invariant: the guests on record are never more than max, and none comes where no fleet is in force. Found ones are exempt: they
-- exist already.
local g = guest_of(ARGV[1])
if g then
  if g.incarnation ~= ARGV[4] or g.shard ~= ARGV[12] then return { 'conflict' } end
  return { 'ok', redis.call('HGETALL', guest_key(g.name)), '' }
end
if ARGV[7] ~= 'quarantined' and not policy() then return { 'no_policy' } end
if ARGV[7] ~= 'quarantined' and redis.call('SCARD', base .. ':guests') >= tonumber(ARGV[5]) then return { 'full' } end
redis.call('SADD', base .. ':guests', ARGV[1])
redis.call('SADD', base .. ':pools', ARGV[2])
-- Redis looks through the fields of a hash in their order: what is written most stands first.
redis.call('HSET', guest_key(ARGV[1]), 'state', '', 'name', ARGV[1], 'pool', ARGV[2], 'slot', ARGV[3], 'incarnation', ARGV[4],
  'until', ARGV[8], unpack(ARGV, 9))
g = guest_of(ARGV[1])
g.state = ''
local handed
move(g, ARGV[7], ARGV[6], g.reason)
if ARGV[7] == 'quarantined' then redis.call('ZADD', base .. ':quarantine', ARGV[8], g.name) end
if ARGV[7] == 'preparing' then
  local p = policy()
  if p and p.prepare ~= '1' then handed = shelve(g, p, ARGV[6], true) end
end
return { 'ok', redis.call('HGETALL', guest_key(g.name)), handed or '' }
