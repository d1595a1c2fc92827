-- turns.lua: write down turns that a server decided by its mirror of the cache: leases of shelved guests that begin, and that end
-- with the guest back on the shelf. It stands first among the calls of a script. What it writes is what grant and finish write, with
-- as few calls on Redis as that takes: a guest that goes from one lease to the next is written once.
-- ARGV   1 version of the mirror  2 how many leases end, then for each of them: guest, pool, incarnation, actor, id, uses, outcome; then
--        for each that begins: guest, pool, incarnation, holder, id, uses, owner, ttl ms, longest ttl ms, source, wish
-- Result ok, ms when  |  stale: the mirror is void or was wrong, and nothing was done
-- Invariant: a lease ends only where it is active and has that guest, and begins only where its id is new and the guest is on the shelf,
-- or comes back to it by this.
if redis.call('GET', base .. ':mirror') ~= ARGV[1] then return { 'stale' } end
local end_size, begin_size, ends = 7, 11, tonumber(ARGV[2])
local first_begin = 3 + ends * end_size

local guests, ending, closed = {}, {}, {}
for at = 3, first_begin - 1, end_size do ending[#ending + 1] = lease_key(ARGV[at + 4]) end
local running = ends > 0 and redis.call('MGET', unpack(ending)) or {}
for i = 1, ends do
  local name, pool, incarnation, actor, id, uses, outcome = unpack(ARGV, 3 + (i - 1) * end_size, 2 + i * end_size)
  if not running[i] or string.sub(running[i], 1, 6) ~= 'active' then return { 'stale' } end
  local _, guest = held_by(running[i])
  if guest ~= name then return { 'stale' } end
  closed[2 * i - 1], closed[2 * i] = ending[i], ended_text(running[i], 'released', outcome)
  guests[name] = { pool = pool, was = 'leased', state = 'shelved', over = id, lease = '', uses = uses,
    ended = history(incarnation, 'leased', 'shelved', actor, id, '', how_it_ended('released', outcome)) }
end

local begun, taken = {}, {}
for at = first_begin, #ARGV, begin_size do
  local name, pool, incarnation, holder, id, uses, owner, ttl, longest, source, wish = unpack(ARGV, at, at + begin_size - 1)
  local g = guests[name]
  if not g then
    g = { pool = pool, was = 'shelved' }
    guests[name] = g
    if not taken[pool] then taken[pool] = {} end
    taken[pool][#taken[pool] + 1] = name
  end
  local last = now + longest
  g.state, g.lease, g.uses, g.deadline = 'leased', id, uses, as_text(math.min(now + ttl, last))
  g.began = history(incarnation, 'shelved', 'leased', holder, id, '', '')
  begun[#begun + 1] = lease_key(id)
  begun[#begun + 1] = running_text('active', owner, name, incarnation, stamp, g.deadline, as_text(last), source, '1', '0', stamp, wish)
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
for name, g in pairs(guests) do
  local cut = g.uses % 16 == 0
  if g.over then
    later(base .. ':deadlines', g.over, false)
    is_over(g.over)
  end
  if g.began then later(base .. ':deadlines', g.lease, g.deadline) end
  if g.ended and g.began then record(name, cut, 'e', g.ended, 'then', g.began) else record(name, cut, 'e', g.ended or g.began) end
  redis.call('HSET', guest_key(name), 'state', g.state, 'since', stamp, 'lease', g.lease, 'uses', g.uses)
  if g.state ~= g.was then
    later(index(g.pool, g.was), name, false)
    later(index(g.pool, g.state), name, stamp)
  end
end
return { 'ok', now }
