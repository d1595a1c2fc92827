-- free.lua: give a slot of a pool free. KEYS[1] is the base of the pool.
-- ARGV   1 slot
-- Result ok
redis.call('HDEL', base .. ':slots', ARGV[1])
shard_slot(ARGV[1], nil)
if tonumber(ARGV[1]) < tonumber(redis.call('GET', base .. ':lowest') or '1') then redis.call('SET', base .. ':lowest', ARGV[1]) end
return { 'ok' }
