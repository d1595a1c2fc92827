-- turns.lua: write down turns that a server decided by its mirror of the cache: leases of shelved guests that begin, and that end
-- with the guest back on the shelf. It stands first among the calls of a script. What it writes is what grant and finish write, with
-- as few calls on Redis as that takes: a guest that goes from one lease to the next is written once.
-- ARGV   1 version of the mirror, then for each turn
--        "begin", guest, pool, incarnation, holder, id, uses, owner, ttl ms, longest ttl ms, source, wish
--        or "end", guest, pool, incarnation, actor, id, uses, outcome
-- Result ok, ms when  |  stale: the mirror is void, or a lease had begun before or was over, and nothing was done
if redis.call('GET', base .. ':mirror') ~= ARGV[1] then return { 'stale' } end
local begin_size, end_size = 12, 8
local deadlines = base .. ':deadlines'

-- What may turn out to be wrong is looked at before anything is written: whether the leases that end are active, then whether those
-- that begin are new.
local ending, at = {}, 2
while at <= #ARGV do
  if ARGV[at] == 'end' then
    ending[#ending + 1] = lease_key(ARGV[at + 5])
    at = at + end_size
  else at = at + begin_size end
end
local running = #ending > 0 and redis.call('MGET', unpack(ending)) or {}
for i = 1, #ending do
  if not running[i] or string.sub(running[i], 1, 6) ~= 'active' then return { 'stale' } end
end
local begun, closed, n = {}, {}, 0
at = 2
while at <= #ARGV do
  local id = ARGV[at + 5]
  if ARGV[at] == 'end' then
    n = n + 1
    closed[2 * n - 1], closed[2 * n] = ending[n], ended_text(running[n], 'released', ARGV[at + 7])
    at = at + end_size
  else
    local last = now + ARGV[at + 9]
    local deadline = as_text(math.min(now + ARGV[at + 8], last))
    begun[#begun + 1] = lease_key(id)
    begun[#begun + 1] = running_text('active', ARGV[at + 7], ARGV[at + 1], ARGV[at + 3], stamp, deadline, as_text(last), ARGV[at + 10], '1', '0',
      stamp, ARGV[at + 11])
    later(deadlines, id, deadline)
    at = at + begin_size
  end
end
if #begun > 0 and redis.call('MSETNX', unpack(begun)) == 0 then
  pending[deadlines], amounts[deadlines] = nil, nil
  return { 'stale' }
end
if n > 0 then redis.call('MSET', unpack(closed)) end
count('ended:released', n)
count('hits', #begun / 2)

local guests = {}
at = 2
while at <= #ARGV do
  local begins, name, pool, incarnation, actor, id, uses = ARGV[at] == 'begin', unpack(ARGV, at + 1, at + 6)
  local g = guests[name]
  if not g then
    g = { pool = pool, was = begins and 'shelved' or 'leased' }
    guests[name] = g
  end
  g.uses = uses
  local entry
  if begins then
    g.state, g.lease = 'leased', id
    entry = history(incarnation, 'shelved', 'leased', actor, id, '', '')
    at = at + begin_size
  else
    g.state, g.lease = 'shelved', ''
    entry = history(incarnation, 'leased', 'shelved', actor, id, '', how_it_ended('released', ARGV[at + 7]))
    later(deadlines, id, false)
    is_over(id)
    at = at + end_size
  end
  -- Histories are cut now and then: to look whether one is too long costs as much as to write.
  if uses % 16 == 0 then record(name, entry) else redis.call('XADD', base .. ':events:' .. name, '*', 'e', entry) end
end
for name, g in pairs(guests) do
  redis.call('HSET', guest_key(name), 'state', g.state, 'since', stamp, 'lease', g.lease, 'uses', g.uses)
  if g.state ~= g.was then later(index(g.pool, g.was), name, false) end
  later(index(g.pool, g.state), name, stamp)
end
return { 'ok', now }
