-- mirror.lua: what a server must know to decide turns by itself, see turns.lua: the guests on top of the shelf, and some leases. It stands
-- last among the calls of a script. What it tells is true until something voids it; see lib.lua.
-- ARGV   1 version of the mirror  2 that of the one before  3 most guests of a pool  4... ids of leases
-- Result ok, uses, age ms, size, {pool, guests on the shelf, then a row of each on top, the last to be leased first},
--        {lease, a row of its guest, …} of those that are active, {ids of those that are over}
--        |  kept: the one before is still true  |  none: more than turns happens here
-- A row is: name, pool, incarnation, uses, ms when it was born, address.
if not voided and redis.call('GET', base .. ':mirror') == ARGV[2] then return { 'kept' } end
local p = policy()
local plain = p and enabled(p) and not known_override and p.reset ~= '1' and p.uses ~= '1' and redis.call('ZCARD', base .. ':queue') == 0
if not plain then return { 'none' } end

-- row adds that of a guest to a list. It returns its lease, and whether more than a turn is to be done when that ends.
local function row(list, name)
  local v = redis.call('HMGET', guest_key(name), 'pool', 'incarnation', 'uses', 'born', 'address', 'lease', 'condemned', 'health', 'reason', 'reset')
  list[#list + 1] = name
  for i = 1, 5 do list[#list + 1] = v[i] or '' end
  return v[6], (v[7] or '') .. (v[8] or '') .. (v[9] or '') ~= '' or v[10] == '1'
end
local tops, leases, ended = {}, {}, {}
for _, pool in ipairs(split(p.pools)) do
  write(index(pool, 'shelved'))
  local top = { pool, size(pool) }
  for _, name in ipairs(redis.call('ZRANGE', index(pool, 'shelved'), -tonumber(ARGV[3]), -1)) do
    local _, more = row(top, name)
    if more then return { 'none' } end
  end
  tops[#tops + 1] = top
end
for i = 4, #ARGV do
  local text = redis.call('GET', lease_key(ARGV[i])) or ''
  local phase = string.sub(text, 1, 6)
  if phase == 'active' then
    local _, guest = held_by(text)
    local of = { text }
    local id, more = row(of, guest)
    if id == ARGV[i] and not more then leases[#leases + 1] = of end
  elseif phase == 'ended\n' then ended[#ended + 1] = ARGV[i] end
end
redis.call('SET', base .. ':mirror', ARGV[1])
voided = false
return { 'ok', p.uses or '0', p.age or '0', p.size or '0', tops, leases, ended }
