-- adopt.lua: bring the settings of a cache into force; none means that the spec has the cache no more. Requests that wait for nothing
-- but pools that the cache has no more end: they would wait for ever.
-- ARGV   field, value, …
-- Result ok, 0, ids of the leases that changed
redis.call('DEL', base .. ':policy')
known_policy, voided = nil, true
if #ARGV > 0 then redis.call('HSET', base .. ':policy', unpack(ARGV)) end
local p, left = policy(), {}
for _, pool in ipairs(split(p and p.pools)) do left[pool] = true end
local changed = {}
for _, id in ipairs(redis.call('ZRANGE', base .. ':queue', 0, -1)) do
  local l, waits = lease_of(id) or { id = id }, false
  for _, pool in ipairs(split(l.pools)) do waits = waits or left[pool] end
  if not waits then
    drop_request(l, 'removed')
    changed[#changed + 1] = id
  end
end
return { 'ok', 0, changed }
