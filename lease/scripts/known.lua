-- known.lua: leases that are not in a server's mirror of the cache yet, see mirror.lua.
-- ARGV   1 version of the mirror  2... ids
-- Result ok, {lease, a row of its guest}, … of those that end by a turn  |  stale: the mirror is void
if voided or redis.call('GET', base .. ':mirror') ~= ARGV[1] then return { 'stale' } end
local known = { 'ok' }
for i = 2, #ARGV do
  local text = redis.call('GET', lease_key(ARGV[i])) or ''
  if string.sub(text, 1, 6) == 'active' then
    local _, guest = held_by(text)
    local of = { text }
    local id, more = row(of, guest)
    if id == ARGV[i] and not more then known[#known + 1] = of end
  end
end
return known
