-- taint.lua: a durable order to replace a guest. One under a lease is never touched: it is condemned instead, where the caller
-- asks for that, and tainted when the lease ends. Tainting twice keeps the first reason.
-- ARGV   1 name  2 incarnation (0: any)  3 actor  4 reason  5 evidence  6 condemn a leased one (1 or 0)  7 counts as a death (1 or 0)
--        8 states it may be in (comma list; empty: any but those of a claim)
-- A guest that has not come up yet has failed once more in a row.
-- Result ok, guest  |  condemned, guest | unknown | leased | conflict, state, incarnation
local g = guest_of(ARGV[1])
if not g then return { 'unknown' } end
if ARGV[2] ~= '0' and ARGV[2] ~= g.incarnation then return { 'conflict', g.state, g.incarnation } end
if g.state == 'leased' then
  if ARGV[6] ~= '1' then return { 'leased' } end
  redis.call('HSET', guest_key(g.name), 'condemned', ARGV[4], 'evidence', ARGV[5])
  event(g, 'leased', ARGV[3], 'condemned: ' .. ARGV[4], ARGV[5])
  return { 'condemned', redis.call('HGETALL', guest_key(g.name)) }
end
if ARGV[8] ~= '' then
  local allowed = false
  for _, state in ipairs(split(ARGV[8])) do allowed = allowed or state == g.state end
  if not allowed then return { 'conflict', g.state, g.incarnation } end
end
-- A quarantined guest may be somebody's, who has not come back yet.
local claimed = { quarantined = true, planned = true, provisioning = true, replacing = true, retiring = true }
if claimed[g.state] then return { 'conflict', g.state, g.incarnation } end
if g.state ~= 'tainted' then
  local failures = tonumber(g.failures or '0')
  if g.state == 'booting' or g.state == 'preparing' then failures = failures + 1 end
  move(g, 'tainted', ARGV[3], ARGV[4], ARGV[5], 'evidence', ARGV[5], 'failures', failures)
  if ARGV[7] == '1' then count('deaths:' .. g.pool .. ':' .. ARGV[4]) end
end
return { 'ok', redis.call('HGETALL', guest_key(g.name)) }
