-- mirror.lua: what a server must know to decide turns by itself, see turns.lua: the guests on top of the shelf, and some leases. It stands
-- last among the calls of a script. What it tells is true until something voids it; see lib.lua.
-- ARGV   1 version of the mirror  2 that of the one before  3 most guests of a pool  4... ids of leases
-- Result ok, uses, age ms, size, {pool, guests on the shelf, then a row of each on top, the last to be leased first},
--        {lease, a row of its guest, …} of those that are active
--        |  kept: the one before is still true  |  none: more than turns happens here
-- A row is: name, pool, incarnation, uses, ms when it was born, whether its module resets it, address.
if not voided and redis.call('GET', base .. ':mirror') == ARGV[2] then return { 'kept' } end
local p = policy()
if not p or not enabled(p) or known_override or p.reset == '1' or redis.call('ZCARD', base .. ':queue') > 0 then return { 'none' } end
local function row(list, name)
  local v = redis.call('HMGET', guest_key(name), 'pool', 'incarnation', 'uses', 'born', 'reset', 'address', 'lease', 'condemned', 'health')
  list[#list + 1] = name
  for i = 1, 6 do list[#list + 1] = v[i] or '' end
  return v[7], (v[8] or '') .. (v[9] or '')
end
local tops, leases = {}, {}
for _, pool in ipairs(split(p.pools)) do
  local top = { pool, size(pool) }
  for _, name in ipairs(redis.call('ZRANGE', index(pool, 'shelved'), -tonumber(ARGV[3]), -1)) do row(top, name) end
  tops[#tops + 1] = top
end
for i = 4, #ARGV do
  local text = redis.call('GET', lease_key(ARGV[i]))
  if text and string.sub(text, 1, 6) == 'active' then
    local _, guest = held_by(text)
    local of = { text }
    local id, troubles = row(of, guest)
    if id == ARGV[i] and troubles == '' then leases[#leases + 1] = of end
  end
end
redis.call('SET', base .. ':mirror', ARGV[1])
voided = false
return { 'ok', p.uses, p.age, p.size, tops, leases }
