-- turns.lua: write down turns that a server decided by its mirror of the cache: leases of shelved guests that begin, and that end
-- with the guest back on the shelf. It stands first among the calls of a script. What it writes is what grant and finish write, with
-- as few calls on Redis as that takes: a guest that goes from one lease to the next is written once.
-- ARGV   1 version of the mirror  2... a row for each guest: guest, pool, uses; of the lease that ends, where there is one, else empty: id, head,
--        outcome, history; of the lease that begins, where there is one, else empty: id, head, ttl ms, ms that
--        it lasts at most, source, wish, history
-- Result ok, ms when  |  stale: the mirror is void or was wrong, and nothing was done
-- Invariant: a lease ends only where it is active and has that guest, and begins only where its id is new and the guest is on the shelf,
-- or comes back to it by this.
if redis.call('GET', base .. ':mirror') ~= ARGV[1] then return { 'stale' } end
local size = 14

local ending = {}
for at = 2, #ARGV, size do
  if ARGV[at + 3] ~= '' then ending[#ending + 1] = lease_key(ARGV[at + 3]) end
end
local running, ends = #ending > 0 and redis.call('MGET', unpack(ending)) or {}, 0
local closed, begun, taken, deadlines = {}, {}, {}, {}
for at = 2, #ARGV, size do
  local name, pool, _, over, held, outcome, _, id, head, ttl, longest, source, wish = unpack(ARGV, at, at + size - 1)
  local known = 0 -- until then the lease that ends would have gone on
  if over ~= '' then
    ends = ends + 1
    local text = running[ends] or ''
    if string.sub(text, 1, #held) ~= held then return { 'stale' } end
    closed[2 * ends - 1], closed[2 * ends] = ending[ends], ended_text(text, 'released', outcome)
    known = tonumber(string.sub(text, #held + 15, #held + 27)) -- the second line behind the head; see core.lua
  else
    if not taken[pool] then taken[pool] = {} end
    taken[pool][#taken[pool] + 1] = name
  end
  if id ~= '' then
    local deadline = now + ttl
    if over == '' or not known or known > deadline then deadlines[name] = as_text(deadline) end
    begun[#begun + 1] = lease_key(id)
    begun[#begun + 1] = running_text(head, stamp, as_text(deadline), as_text(now + longest), source, '1', '0', stamp, wish)
  end
end
for pool, names in pairs(taken) do
  for _, since in ipairs(redis.call('ZMSCORE', index(pool, 'shelved'), unpack(names))) do
    if not since then return { 'stale' } end
  end
end
if #begun > 0 and redis.call('MSETNX', unpack(begun)) == 0 then return { 'stale' } end

if ends > 0 then redis.call('MSET', unpack(closed)) end
count('ended:released', ends)
count('hits', #begun / 2)
for at = 2, #ARGV, size do
  local name, pool, uses, over, _, _, ended, id, _, _, _, _, _, began = unpack(ARGV, at, at + size - 1)
  local cut, key = uses % 16 == 0, guest_key(name)
  if over ~= '' then is_over(over) end
  if deadlines[name] then later(base .. ':deadlines', name, deadlines[name]) end
  if over ~= '' and id ~= '' then
    record(name, cut, 'e', ended, 'then', began)
    redis.call('HSET', key, 'since', stamp, 'lease', id, 'uses', uses)
  elseif id ~= '' then
    record(name, cut, 'e', began)
    redis.call('HSET', key, 'state', 'leased', 'since', stamp, 'lease', id, 'uses', uses)
    later(index(pool, 'shelved'), name, false)
    later(index(pool, 'leased'), name, stamp)
  else
    record(name, cut, 'e', ended)
    redis.call('HSET', key, 'state', 'shelved', 'since', stamp, 'lease', '', 'uses', uses)
    later(index(pool, 'leased'), name, false)
    later(index(pool, 'shelved'), name, stamp)
    later(base .. ':deadlines', name, false)
  end
end
return { 'ok', now }
