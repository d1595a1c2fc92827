-- health.lua: what the watchdog tells the holder of a leased guest; empty is well.
-- ARGV   1 name  2 incarnation  3 health
-- Result ok  |  unknown | conflict
local g = guest_of(ARGV[1])
if not g then return { 'unknown' } end
if g.incarnation ~= ARGV[2] or g.state ~= 'leased' then return { 'conflict', g.state, g.incarnation } end
if (g.health or '') ~= ARGV[3] then
  redis.call('HSET', guest_key(g.name), 'health', ARGV[3])
  event(g, 'leased', 'watchdog', ARGV[3] == '' and 'well again' or 'unhealthy', ARGV[3])
end
return { 'ok' }
