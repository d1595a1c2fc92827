-- lib.lua stands in front of the calls, and calls.lua behind them. Together they are one script, which carries out a list of
-- calls on one cache: what comes in at the same time goes to Redis at once. Each call stands in a file of its own, as the body
-- of a function of ARGV.
--
-- KEYS[1]  base of the keys of one cache, "<prefix>:{<cache>}". Every key a script touches begins with it, so that all of
--          them live in one slot of a Redis Cluster.
-- Result   of a call: an array: a code ("ok", or the fact that stood in the way), then what the call's header names.
--
-- Keys below the base:
--   policy          hash   the cache's settings in force (absent: the spec has the cache no more)
--   override        hash   enabled, until, by: the run-time knob over the policy
--   guests          set    names of the guests on record;  pools: of the pools that it ever had a guest of
--   guest:<name>    hash   one guest; its field address is {host, port, user, host key}, a line each
--   in:<pool>:<state>  zset  guest name -> ms since when, whatever leases have it one after the other; the state "shelved" is the shelf
--   lease:<id>      string one lease or request; see lease_of
--   mirror          string version of the server's mirror of the cache, while that is true; see mirror.lua
--   queue           zset   request id -> number in line;  queue:<pool> the same for those that the pool satisfies
--   patience        zset   request id -> ms when it lapses unless asked for again
--   deadlines       zset   lease id -> ms of expiry
--   holds, quarantine  zset  guest name -> ms of the end
--   over            list   the leases on record that have ended, the first first: ms of the end, a space, id
--   stats           hash   counters;  events:<guest> stream: its history, bounded; see event
--   slots, incarnations  hash  (pools only) slot -> cache; slot -> last incarnation;  lowest: no slot below it is free
--   shards          hash   (pools only) slot -> shard of its guest;  shard:<id> set: the slots of one
--
-- Invariants: a guest is in exactly one index; a pool with a waiting request and a shelved guest in the same enabled cache
-- does not exist after any call; a lease counts once as hit or miss, at its grant.

local base = KEYS[1]
local wanted = math.min(tonumber(ARGV[1]), 100) -- most guests that the calls can want of a shelf
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

-- as_text writes a time, once for all that have it: writing numbers is what costs most.
local texts = {}
local function as_text(time)
  local text = texts[time]
  if not text then
    text = string.format('%.0f', time)
    texts[time] = text
  end
  return text
end
local stamp = as_text(now)

-- What many calls write to is written once, at the end: the sorted sets in:… and deadlines, the list over, and the counters. Who
-- reads one of them writes it first. later, is_over and count are the only ways to write them.
local pending, amounts, counts, over = {}, {}, {}, {}

local function write(key)
  local members = pending[key]
  if not members then return end
  pending[key], amounts[key] = nil, nil
  local out, come = {}, {}
  for member, score in pairs(members) do
    if score then
      come[#come + 1] = score
      come[#come + 1] = member
    else
      out[#out + 1] = member
    end
  end
  if #out > 0 then redis.call('ZREM', key, unpack(out)) end
  if #come > 0 then redis.call('ZADD', key, unpack(come)) end
end

-- later puts a member into a sorted set, or takes it out where the score is false. What was said last counts.
local function later(key, member, score)
  if (amounts[key] or 0) >= 1000 then write(key) end -- unpack has a limit
  local members = pending[key]
  if not members then
    members = {}
    pending[key] = members
  end
  members[member] = score
  amounts[key] = (amounts[key] or 0) + 1
end

local function write_over()
  if #over > 0 then redis.call('RPUSH', base .. ':over', unpack(over)) end
  over = {}
end

local function is_over(id)
  if #over >= 1000 then write_over() end -- as in later
  over[#over + 1] = stamp .. ' ' .. id
end

local function count(name, by) counts[name] = (counts[name] or 0) + (by or 1) end

-- voided says that the server's mirror is true no more: a guest changed in another way than by a turn, or what is decided by did.
local voided = false

local function write_all()
  if voided then redis.call('DEL', base .. ':mirror') end
  local keys = {}
  for key in pairs(pending) do keys[#keys + 1] = key end
  for _, key in ipairs(keys) do write(key) end
  write_over()
  for name, by in pairs(counts) do if by ~= 0 then redis.call('HINCRBY', base .. ':stats', name, by) end end
end

local function hash(key)
  local flat = redis.call('HGETALL', key)
  if #flat == 0 then return nil end
  local h = {}
  for i = 1, #flat, 2 do h[flat[i]] = flat[i + 1] end
  return h
end

local function guest_key(name) return base .. ':guest:' .. name end
local function lease_key(id) return base .. ':lease:' .. id end
local indexes = {}
local function index(pool, state)
  local of = indexes[pool]
  if not of then
    of = {}
    indexes[pool] = of
  end
  if not of[state] then of[state] = base .. ':in:' .. pool .. ':' .. state end
  return of[state]
end
local function guest_of(name) return hash(guest_key(name)) end

-- A lease is one text, which costs a third of a hash of its fields. Each field is a line, and the last may have several: 1 phase
-- 2 ended 3 how 4 outcome 5 owner 6 guest 7 incarnation 8 granted 9 deadline 10 cap 11 source 12 hit 13 wait until 14 created,
-- and then the wish, which never changes: 15 id 16 holder 17 pools 18 ttl 19 longest ttl 20 patience 21 idempotency key
-- 22 fingerprint 23 public key. Times are in ms; package lease reads and writes the same lines.
-- Writing a text is one long concatenation, because that is what Lua is quickest at.
local a_line = '([^\n]*)\n'
local wish_pattern = '^' .. string.rep(a_line, 8)
local lease_pattern = '^' .. string.rep(a_line, 14) .. '()' .. string.rep(a_line, 8)

-- lease_of reads a lease into a table, with the text itself, or returns nil.
local function lease_of(id)
  local text = redis.call('GET', lease_key(id))
  if not text then return nil end
  local phase, _, how, _, owner, guest, incarnation, granted, deadline, cap, source, hit, wait_until, created, at,
    _, holder, pools, ttl, cap_ms, patience, _, fingerprint = string.match(text, lease_pattern)
  return { text = text, id = id, phase = phase, how = how, owner = owner, guest = guest, incarnation = incarnation, granted = granted,
    deadline = deadline, cap = cap, source = source, hit = hit, wait_until = wait_until, created = created, holder = holder, pools = pools,
    ttl = ttl, cap_ms = cap_ms, patience = patience, fingerprint = fingerprint, wish = string.sub(text, at) }
end

-- running_text is a lease that is not over: its phase has six letters, and three empty lines follow it.
local function running_text(phase, owner, guest, incarnation, granted, deadline, cap, source, hit, wait_until, created, wish)
  return phase .. '\n\n\n\n' .. owner .. '\n' .. guest .. '\n' .. incarnation .. '\n' .. granted .. '\n' .. deadline .. '\n'
    .. cap .. '\n' .. source .. '\n' .. hit .. '\n' .. wait_until .. '\n' .. created .. '\n' .. wish
end

local function write_lease(l)
  l.text = running_text(l.phase, l.owner, l.guest, l.incarnation, l.granted, l.deadline, l.cap, l.source, l.hit, l.wait_until, l.created, l.wish)
  redis.call('SET', lease_key(l.id), l.text)
end

-- held_by reads from the text of a lease that is not over: its owner and its guest.
local function held_by(text)
  local first = string.find(text, '\n', 11, true)
  return string.sub(text, 11, first - 1), string.sub(text, first + 1, string.find(text, '\n', first + 1, true) - 1)
end

-- The settings, and what is known of shelves and queues, are read once for all calls; what changes them forgets them.
local known_policy, known_override
local shelves, sizes, queues = {}, {}, {}

local function policy()
  if known_policy == nil then known_policy = hash(base .. ':policy') or false end
  return known_policy or nil
end

local lists = {}
local function split(list)
  if not list then return {} end
  local out = lists[list]
  if not out then
    out = {}
    for item in string.gmatch(list, '[^,]+') do out[#out + 1] = item end
    lists[list] = out
  end
  return out
end

-- enabled: the run-time override first, then the policy; a cache without a policy is not served.
local function enabled(p)
  if known_override == nil then known_override = hash(base .. ':override') or false end
  local o = known_override
  if o and o['until'] ~= '0' and tonumber(o['until']) <= now then known_override = false end
  return p ~= nil and (known_override or p).enabled == '1'
end

-- waiting is how many requests wait for a pool.
local function waiting(pool)
  if not queues[pool] then queues[pool] = redis.call('ZCARD', base .. ':queue:' .. pool) end
  return queues[pool]
end

-- size is how many guests of a pool are on the shelf.
local function size(pool)
  if not sizes[pool] then
    write(index(pool, 'shelved'))
    sizes[pool] = redis.call('ZCARD', index(pool, 'shelved'))
  end
  return sizes[pool]
end

-- top is the guest of a pool that was shelved last, or nil. It looks as far down as all calls together can want.
local function top(pool)
  local shelf = shelves[pool]
  if not shelf or #shelf == 0 and shelf.deeper then
    write(index(pool, 'shelved'))
    shelf = redis.call('ZRANGE', index(pool, 'shelved'), -wanted, -1)
    shelf.deeper = #shelf == wanted
    shelves[pool] = shelf
  end
  return shelf[#shelf]
end

-- reshelved keeps what is known of a shelf true when a guest leaves it or comes to it.
local function reshelved(g, to)
  local shelf, n = shelves[g.pool], sizes[g.pool]
  if g.state == 'shelved' then
    if n then sizes[g.pool] = n - 1 end
    if shelf and shelf[#shelf] == g.name then shelf[#shelf] = nil else shelves[g.pool] = nil end
  end
  if to == 'shelved' then
    if n then sizes[g.pool] = sizes[g.pool] + 1 end
    shelf = shelves[g.pool]
    if shelf then shelf[#shelf + 1] = g.name end
  end
end

-- history is one entry of a guest's history, a line for each of its fields, of which the detail may have several.
local function history(incarnation, from, to, actor, lease, reason, detail)
  return incarnation .. '\n' .. from .. '\n' .. to .. '\n' .. actor .. '\n' .. lease .. '\n' .. reason .. '\n' .. detail
end

-- record adds an entry to a guest's history: e, an event, and perhaps then, one that came at once behind it. It cuts the history only where it
-- is told to: to look whether one is too long costs as much as to write.
local function record(name, cut, ...)
  local key = base .. ':events:' .. name
  if cut then redis.call('XADD', key, 'MAXLEN', '~', '200', '*', ...) else redis.call('XADD', key, '*', ...) end
end

-- event records what becomes of a guest otherwise than by a turn.
local function event(g, to, actor, reason, detail)
  voided = true
  if string.find(reason, '\n', 1, true) then reason = string.gsub(reason, '\n', ' ') end
  record(g.name, true, 'e', history(g.incarnation, g.state, to, actor, g.lease or '', reason, detail))
end

-- on_order notes since when a guest is on order: from planned or replacing, whatever fails on the way, until it is first shelved
-- or leased. In that step g.since_order tells. Keeping it aside ends the order, too.
local function on_order(g, to)
  local ordered = (g.ordered or '') ~= ''
  if to == 'planned' or to == 'replacing' then
    if not ordered then redis.call('HSET', guest_key(g.name), 'ordered', stamp) end
  elseif ordered and (to == 'shelved' or to == 'leased' or to == 'held') then
    redis.call('HDEL', guest_key(g.name), 'ordered')
    if to ~= 'held' then g.since_order = g.ordered end
  end
end

-- move is the only place where a guest changes its state. Whose it is goes with the state: g.lease where that is leased, else
-- nobody's. Behind detail come fields and values of what else to set.
local function move(g, to, actor, reason, detail, ...)
  reason = reason or ''
  event(g, to, actor, reason, detail or '')
  if g.state ~= '' then later(index(g.pool, g.state), g.name, false) end
  if g.state == 'held' then redis.call('ZREM', base .. ':holds', g.name) end
  if g.state == 'quarantined' then redis.call('ZREM', base .. ':quarantine', g.name) end
  later(index(g.pool, to), g.name, stamp)
  redis.call('HSET', guest_key(g.name), 'state', to, 'since', stamp, 'reason', reason, 'lease', to == 'leased' and g.lease or '',
    'health', '', ...)
  if (to == 'shelved' or to == 'leased') and (g.failures or '0') ~= '0' then redis.call('HSET', guest_key(g.name), 'failures', 0) end
  on_order(g, to)
  reshelved(g, to)
  g.state = to
end

local function leave_queue(l)
  redis.call('ZREM', base .. ':queue', l.id)
  redis.call('ZREM', base .. ':patience', l.id)
  for _, pool in ipairs(split(l.pools)) do redis.call('ZREM', base .. ':queue:' .. pool, l.id) end
  queues = {}
end

-- ended_text is a lease that is over, which it was not before.
local function ended_text(text, how, outcome)
  return 'ended\n' .. stamp .. '\n' .. how .. '\n' .. outcome .. '\n' .. string.sub(text, 11)
end

-- close writes that a lease is over.
local function close(id, text, how, outcome)
  text = ended_text(text, how, outcome)
  redis.call('SET', lease_key(id), text)
  is_over(id)
  count('ended:' .. how)
  return text
end

local function drop_request(l, how)
  leave_queue(l)
  if l.text then l.text = close(l.id, l.text, how, '') end
end

-- lapse ends a request that nobody asks for any more, or that has waited for as long as it wanted.
local function lapse(l)
  local timed = l.wait_until and l.wait_until ~= '0' and tonumber(l.wait_until) <= now
  drop_request(l, timed and 'timed_out' or 'abandoned')
end

-- grant gives guest g to request l: the one way into the state leased.
local function grant(l, g, source, hit)
  local last = now + tonumber(l.cap_ms)
  l.phase, l.guest, l.incarnation, l.granted, l.source, l.hit = 'active', g.name, g.incarnation, stamp, source, hit and '1' or '0'
  l.cap, l.deadline = as_text(last), as_text(math.min(now + tonumber(l.ttl), last))
  write_lease(l)
  later(base .. ':deadlines', l.id, l.deadline)
  count(hit and 'hits' or 'misses')
  g.lease = l.id
  move(g, 'leased', l.holder, '', '', 'uses', tonumber(g.uses or '0') + 1)
end

local lapsed = {} -- requests that ended while something else was done

-- hand_over gives g to the first request in line that it satisfies; requests that nobody asks for any more lapse: those that had
-- lapsed when the caches were last swept, for what has lapsed since may be due to a time away, which the next sweep sees.
-- Returns the lease id, or nil when nobody waits.
local function hand_over(g, p, source)
  if waiting(g.pool) == 0 or not enabled(p) then return nil end
  local swept = math.min(now, tonumber(redis.call('GET', base .. ':swept') or '0'))
  while true do
    local id = redis.call('ZRANGE', base .. ':queue:' .. g.pool, 0, 0)[1]
    if not id then return nil end
    local l = lease_of(id)
    local patience = tonumber(redis.call('ZSCORE', base .. ':patience', id) or '0')
    if l and patience >= swept then
      leave_queue(l)
      grant(l, g, source, false)
      return id
    end
    lapse(l or { id = id, pools = g.pool })
    lapsed[#lapsed + 1] = id
  end
end

local function shelved(p)
  local n = 0
  for _, pool in ipairs(split(p.pools)) do n = n + size(pool) end
  return n
end

-- shelve offers g to the queue, then puts it on the shelf. A used guest over the size is excess; a fresh one always lands,
-- so that a rollout at full size can put the new beside the old.
local function shelve(g, p, actor, fresh, detail)
  local source = 'shelf'
  if fresh then source = (g.drawn == '1') and 'spare' or 'new' end
  local id = hand_over(g, p, source)
  if id then return id end
  if not fresh and shelved(p) >= tonumber(p.size) then
    move(g, 'tainted', actor, 'excess', detail)
  else
    move(g, 'shelved', actor, '', detail)
  end
  return nil
end

-- settle sends a guest that is nobody's any more where it belongs; returns the lease it was handed to, if any.
local function settle(g, p, actor, o)
  local detail = o.detail or ''
  if (g.condemned or '') ~= '' then move(g, 'tainted', actor, g.condemned, detail)
  elseif o.hold and o.hold > 0 then
    redis.call('ZADD', base .. ':holds', now + o.hold, g.name)
    move(g, 'held', actor, 'hold', detail, 'until', now + o.hold)
  elseif o.unwanted then move(g, 'tainted', actor, 'unwanted', detail)
  elseif not p then move(g, 'tainted', actor, 'removed', detail)
  elseif p.uses ~= '0' and tonumber(g.uses) >= tonumber(p.uses) then move(g, 'tainted', actor, 'uses', detail)
  elseif p.age ~= '0' and now - tonumber(g.born or '0') >= tonumber(p.age) then move(g, 'tainted', actor, 'age', detail)
  elseif p.reset == '1' or g.reset == '1' then move(g, 'resetting', actor, '', detail)
  else return shelve(g, p, actor, false, detail) end
  return nil
end

local function how_it_ended(how, outcome) return how .. (outcome ~= '' and (': ' .. outcome) or '') end

-- finish ends an active lease and sends its guest on; returns the text of the lease, the lease that the guest was handed to, if
-- any, and the state that it is in now.
local function finish(id, text, guest, how, outcome, actor, o)
  text = close(id, text, how, outcome) -- first, because it may fail: who has no deadline never ends
  later(base .. ':deadlines', id, false)
  local v = redis.call('HMGET', guest_key(guest), 'pool', 'incarnation', 'state', 'lease', 'uses', 'born', 'condemned', 'reset', 'drawn')
  if v[4] ~= id or v[3] ~= 'leased' then return text end
  local g = { name = guest, pool = v[1], incarnation = v[2], state = v[3], lease = v[4], uses = v[5] or '0', born = v[6] or '0',
    condemned = v[7] or '', reset = v[8], drawn = v[9] }
  o.detail = how_it_ended(how, outcome)
  local handed = settle(g, policy(), actor, o)
  return text, handed, g.state
end

-- shard_slot notes which shard the guest of a slot is in; nil: the slot is free.
local function shard_slot(slot, shard)
  local before = redis.call('HGET', base .. ':shards', slot)
  if before then redis.call('SREM', base .. ':shard:' .. before, slot) end
  if shard then
    redis.call('HSET', base .. ':shards', slot, shard)
    redis.call('SADD', base .. ':shard:' .. shard, slot)
  else
    redis.call('HDEL', base .. ':shards', slot)
  end
end

local function may(owner_of, owner, admin) return admin == '1' or owner_of == owner end

-- view is the result that a lease is: code, lease, place in line, extra, again, and, while it has a guest: that one's address, health.
local function view(code, id, extra, again)
  local text = redis.call('GET', lease_key(id))
  local phase, place, address, health = string.sub(text, 1, 6), 0, '', ''
  if phase == 'queued' then place = (redis.call('ZRANK', base .. ':queue', id) or -1) + 1 end
  if phase == 'active' then
    local _, guest = held_by(text)
    local has = redis.call('HMGET', guest_key(guest), 'lease', 'address', 'health')
    if has[1] == id then address, health = has[2] or '', has[3] or '' end
  end
  return { code, text, place, extra or '', again or '', address, health }
end

-- row adds to a list what a mirror knows of a guest: name, pool, incarnation, uses, ms when it was born, address. It returns the guest's
-- lease, and whether there is more to do than a turn when that ends.
local function row(list, name)
  local v = redis.call('HMGET', guest_key(name), 'pool', 'incarnation', 'uses', 'born', 'address', 'lease', 'condemned', 'health', 'reason', 'reset')
  list[#list + 1] = name
  for i = 1, 5 do list[#list + 1] = v[i] or '' end
  return v[6], (v[7] or '') .. (v[8] or '') .. (v[9] or '') ~= '' or v[10] == '1'
end

local calls = {}
