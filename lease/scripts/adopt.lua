-- adopt.lua: bring the settings of a cache into force; none means that the spec has the cache no more: its waiting requests end.
-- ARGV   field, value, …
-- Result ok, 0, ids of the leases that changed
redis.call('DEL', base .. ':policy')
known_policy = nil
local changed = {}
if #ARGV > 0 then
  redis.call('HSET', base .. ':policy', unpack(ARGV))
else
  for _, id in ipairs(redis.call('ZRANGE', base .. ':queue', 0, -1)) do
    drop_request(lease_of(id) or { id = id }, 'removed')
    changed[#changed + 1] = id
  end
end
return { 'ok', 0, changed }
