-- turns.lua: write down turns that a server decided by its mirror of the cache: leases of shelved guests that begin, and that end
-- with the guest back on the shelf. It stands first among the calls of a script. What it writes is what grant and finish write, with
-- as few calls as that takes.
-- ARGV   1 version of the mirror  2 its next version, then for each turn
--        "begin", guest, pool, incarnation, holder, id, uses, owner, ttl ms, longest ttl ms, source, wish
--        or "end", guest, pool, incarnation, actor, id, uses, outcome
-- Result ok, ms when  |  stale: the mirror is void, or a lease had begun before or was over, and nothing was done
if redis.call('GET', base .. ':mirror') ~= ARGV[1] then return { 'stale' } end
local leases = base .. ':lease:'

-- Leases that end are read, and those that begin written, before anything else is, for both may turn out to be wrong.
local begun, ending, at = {}, {}, 3
while at <= #ARGV do
  local id = ARGV[at + 5]
  if ARGV[at] == 'begin' then
    local last = now + ARGV[at + 9]
    local n = #begun
    begun[n + 1] = leases .. id
    begun[n + 2] = running_text('active', ARGV[at + 7], ARGV[at + 1], ARGV[at + 3], stamp, as_text(math.min(now + ARGV[at + 8], last)),
      as_text(last), ARGV[at + 10], '1', '0', stamp, ARGV[at + 11])
    at = at + 12
  else
    ending[#ending + 1] = leases .. id
    at = at + 8
  end
end
local texts_of_ending = #ending > 0 and redis.call('MGET', unpack(ending)) or {}
for _, text in ipairs(texts_of_ending) do
  if not text or string.sub(text, 1, 6) ~= 'active' then return { 'stale' } end
end
if #texts_of_ending < #ending or #begun > 0 and redis.call('MSETNX', unpack(begun)) == 0 then return { 'stale' } end
redis.call('SET', base .. ':mirror', ARGV[2])

local guests, events, states, n = base .. ':guest:', base .. ':events:', {}, 0
at = 3
while at <= #ARGV do
  local guest, pool, incarnation, actor, id, uses = unpack(ARGV, at + 1, at + 6)
  local of = states[pool]
  if not of then
    of = {}
    states[pool] = of
  end
  local text
  if ARGV[at] == 'begin' then
    later(base .. ':deadlines', id, as_text(math.min(now + ARGV[at + 8], now + ARGV[at + 9])))
    redis.call('HSET', guests .. guest, 'state', 'leased', 'since', stamp, 'lease', id, 'uses', uses)
    text = history(incarnation, 'shelved', 'leased', actor, id, '', '')
    of[guest] = 'leased'
    count('hits')
    at = at + 12
  else
    local outcome = ARGV[at + 7]
    n = n + 1
    later(base .. ':deadlines', id, false)
    close(id, texts_of_ending[n], 'released', outcome)
    redis.call('HSET', guests .. guest, 'state', 'shelved', 'since', stamp, 'lease', '')
    text = history(incarnation, 'leased', 'shelved', actor, id, '', how_it_ended('released', outcome))
    of[guest] = 'shelved'
    at = at + 8
  end
  -- histories are cut now and then: to look whether one is too long costs as much as to write
  if uses % 16 == 0 then record(guest, text) else redis.call('XADD', events .. guest, '*', 'e', text) end
end
for pool, of in pairs(states) do
  for guest, state in pairs(of) do
    later(index(pool, 'shelved'), guest, state == 'shelved' and stamp)
    later(index(pool, 'leased'), guest, state == 'leased' and stamp)
  end
end
return { 'ok', now }
