-- turns.lua: write down turns that a server decided by its mirror of the cache: leases of shelved guests that begin, and that end
-- with the guest back on the shelf. It stands first among the calls of a script. What it writes is what grant and finish write, with
-- as few calls on Redis and as few texts as that takes: a guest that goes from one lease to the next is written once, and what the
-- times of a batch make of a text is made once.
-- ARGV   1 version of the mirror  2... a row for each guest: guest, pool, uses; of the lease that ends, where there is one, else empty: id, head,
--        outcome; of the lease that begins, where there is one, else empty: id, head, ttl ms, ms that it lasts at most, source, wish; what
--        is recorded of both; see running_text, running_times and record in core.lua
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
local outcome, closing, ttl, longest, source, deadline, running -- of the row before, which mostly has the same
for at = 2, #ARGV, size do
  local name, over, id = ARGV[at], ARGV[at + 3], ARGV[at + 6]
  local known = '' -- until then the lease that ends would have gone on
  if over ~= '' then
    ends = ends + 1
    local text, held = found[ends + 1] or '', ARGV[at + 4]
    if string.find(text, held, 1, true) ~= 1 then return { 'stale' } end
    if outcome ~= ARGV[at + 5] then
      outcome = ARGV[at + 5]
      closing = ended_head('released', outcome)
    end
    closed[2 * ends - 1], closed[2 * ends] = keys[ends + 1], closing .. string.sub(text, 11)
    known = string.sub(text, #held + 15, #held + 27) -- the second line behind the head
  else
    local pool = ARGV[at + 1]
    if not taken[pool] then taken[pool] = {} end
    taken[pool][#taken[pool] + 1] = name
  end
  if id ~= '' then
    if ttl ~= ARGV[at + 8] or longest ~= ARGV[at + 9] or source ~= ARGV[at + 10] then
      ttl, longest, source = ARGV[at + 8], ARGV[at + 9], ARGV[at + 10]
      deadline = as_text(now + ttl)
      running = running_times(stamp, deadline, as_text(now + longest), source, '1', '0', stamp)
    end
    if known == '' or known > deadline then deadlines[name] = deadline end
    begun[#begun + 1] = lease_key(id)
    begun[#begun + 1] = ARGV[at + 7] .. running .. ARGV[at + 11]
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
local leased, shelved = state_head('leased'), state_head('shelved')
for at = 2, #ARGV, size do
  local name, pool, uses, over, id = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 6]
  local ended, begins = over ~= '', id ~= ''
  if ended then is_over(over) end
  record(name, uses % 16 == 0, ended and begins and 'two' or 'e', ARGV[at + 12])
  redis.call('HSET', guest_key(name), 'state', (begins and leased or shelved) .. uses .. '\n' .. id)
  if begins then
    if not ended then later(index(pool, 'shelved'), name, false) end
    if deadlines[name] then later(index(pool, 'leased'), name, deadlines[name]) end
  else
    later(index(pool, 'leased'), name, false)
    later(index(pool, 'shelved'), name, stamp)
  end
end
return { 'ok', now }
