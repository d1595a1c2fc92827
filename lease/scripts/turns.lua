-- turns.lua: write down turns that a server decided by its mirror of the cache: leases of shelved guests that begin, and that end
-- with the guest back on the shelf. It stands first among the calls of a script. What it writes is what grant and finish write, with
-- as few calls on Redis as that takes: a guest that goes from one lease to the next is written once.
-- ARGV   1 version of the mirror  2... a row for each guest: guest, pool, uses; of the lease that ends, where there is one, else empty: id, head,
--        outcome; of the lease that begins, where there is one, else empty: id, head, ttl ms, ms that it lasts at most, source, wish; what
--        is recorded of both; see running_text and record in core.lua
-- Result ok, ms when  |  stale: the mirror is void or was wrong, and nothing was done
-- Invariant: a lease ends only where it is active and has that guest, and begins only where its id is new and the guest is on the shelf,
-- or comes back to it by this.
local size, keys = 13, { base .. ':mirror' }
for at = 2, #ARGV, size do
  if ARGV[at + 3] ~= '' then keys[#keys + 1] = lease_key(ARGV[at + 3]) end
end
local found = redis.call('MGET', unpack(keys))
if found[1] ~= ARGV[1] then return { 'stale' } end

local ends, closed, begun, taken, deadlines = 0, {}, {}, {}, {}
for at = 2, #ARGV, size do
  local name, pool, _, over, held, outcome, id, head, ttl, longest, source, wish = unpack(ARGV, at, at + size - 2)
  local known = 0 -- until then the lease that ends would have gone on
  if over ~= '' then
    ends = ends + 1
    local text = found[ends + 1] or ''
    if string.sub(text, 1, #held) ~= held then return { 'stale' } end
    closed[2 * ends - 1], closed[2 * ends] = keys[ends + 1], ended_text(text, 'released', outcome)
    known = tonumber(string.sub(text, #held + 15, #held + 27)) -- the second line behind the head
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
  local name, pool, uses, over, id = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 6]
  local ended, begins = over ~= '', id ~= ''
  if ended then is_over(over) end
  record(name, uses % 16 == 0, ended and begins and 'two' or 'e', ARGV[at + 12])
  redis.call('HSET', guest_key(name), 'state', state_text(begins and 'leased' or 'shelved', uses, id))
  if begins then
    if not ended then later(index(pool, 'shelved'), name, false) end
    if deadlines[name] then later(index(pool, 'leased'), name, deadlines[name]) end
  else
    later(index(pool, 'leased'), name, false)
    later(index(pool, 'shelved'), name, stamp)
  end
end
return { 'ok', now }
