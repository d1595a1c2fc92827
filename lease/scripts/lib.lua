-- lib.lua stands in front of every script.
--
-- KEYS[1]  base of the keys of one cache, "<prefix>:{<cache>}". Every key a script touches begins with it, so that all of
--          them live in one slot of a Redis Cluster.
-- Result   an array: a code ("ok", or the fact that stood in the way), then what the script's header names.
--
-- Keys below the base:
--   policy          hash   the cache's settings in force (absent: the spec has the cache no more)
--   override        hash   enabled, until, by: the run-time knob over the policy
--   guests          set    names of the guests on record;  pools: of the pools that it ever had a guest of
--   guest:<name>    hash   one guest
--   in:<pool>:<state>  zset  guest name -> ms since when; the state "shelved" is the shelf
--   lease:<id>      hash   one lease or request
--   queue           zset   request id -> number in line;  queue:<pool> the same for those that the pool satisfies
--   patience        zset   request id -> ms when it lapses unless asked for again
--   deadlines       zset   lease id -> ms of expiry
--   holds, quarantine  zset  guest name -> ms of the end
--   ended           zset   lease id -> ms of the end; idem hash: idempotency key -> lease id
--   stats           hash   counters;  events:<guest> stream: its history, bounded
--   slots, incarnations  hash  (pools only) slot -> cache; slot -> last incarnation;  lowest: no slot below it is free
--
-- Invariants: a guest is in exactly one index; a pool with a waiting request and a shelved guest in the same enabled cache
-- does not exist after any script; a lease counts once as hit or miss, at its grant.

local base = KEYS[1]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local function hash(key)
  local flat = redis.call('HGETALL', key)
  if #flat == 0 then return nil end
  local h = {}
  for i = 1, #flat, 2 do h[flat[i]] = flat[i + 1] end
  return h
end

local function guest_key(name) return base .. ':guest:' .. name end
local function lease_key(id) return base .. ':lease:' .. id end
local function index(pool, state) return base .. ':in:' .. pool .. ':' .. state end
local function guest_of(name) return hash(guest_key(name)) end
local function lease_of(id) return hash(lease_key(id)) end
local function policy() return hash(base .. ':policy') end
local function count(name, by) redis.call('HINCRBY', base .. ':stats', name, by or 1) end

local function split(list)
  local out = {}
  for item in string.gmatch(list or '', '[^,]+') do out[#out + 1] = item end
  return out
end

-- enabled: the run-time override first, then the policy; a cache without a policy is not served.
local function enabled(p)
  local o = hash(base .. ':override')
  if o and (o['until'] == '0' or tonumber(o['until']) > now) then return p ~= nil and o.enabled == '1' end
  return p ~= nil and p.enabled == '1'
end

local function event(g, to, actor, reason, detail)
  redis.call('XADD', base .. ':events:' .. g.name, 'MAXLEN', '200', '*', 'incarnation', g.incarnation,
    'from', g.state, 'to', to, 'actor', actor, 'lease', g.lease or '', 'reason', reason, 'detail', detail)
end

-- on_order notes since when a guest is on order: from planned or replacing, whatever fails on the way, until it is first shelved
-- or leased. In that step g.since_order tells. Keeping it aside ends the order, too.
local function on_order(g, to)
  local ordered = (g.ordered or '') ~= ''
  if to == 'planned' or to == 'replacing' then
    if not ordered then redis.call('HSET', guest_key(g.name), 'ordered', now) end
  elseif ordered and (to == 'shelved' or to == 'leased' or to == 'held') then
    redis.call('HDEL', guest_key(g.name), 'ordered')
    if to ~= 'held' then g.since_order = g.ordered end
  end
end

-- move is the only place where a guest changes its state. fields: a flat list of what else to set.
local function move(g, to, actor, reason, detail, fields)
  event(g, to, actor, reason or '', detail or '')
  redis.call('ZREM', index(g.pool, g.state), g.name)
  if g.state == 'held' then redis.call('ZREM', base .. ':holds', g.name) end
  if g.state == 'quarantined' then redis.call('ZREM', base .. ':quarantine', g.name) end
  redis.call('ZADD', index(g.pool, to), now, g.name)
  redis.call('HSET', guest_key(g.name), 'state', to, 'since', now, 'reason', reason or '', unpack(fields or {}))
  on_order(g, to)
  g.state = to
end

local function leave_queue(l)
  redis.call('ZREM', base .. ':queue', l.id)
  redis.call('ZREM', base .. ':patience', l.id)
  for _, pool in ipairs(split(l.pools)) do redis.call('ZREM', base .. ':queue:' .. pool, l.id) end
end

local function close(l, how, outcome)
  redis.call('HSET', lease_key(l.id), 'phase', 'ended', 'ended', now, 'how', how, 'outcome', outcome or '')
  redis.call('ZADD', base .. ':ended', now, l.id)
  count('ended:' .. how)
end

local function drop_request(l, how)
  leave_queue(l)
  close(l, how)
end

-- grant gives guest g to request l: the one way into the state leased.
local function grant(l, g, source, hit)
  local cap = now + tonumber(l.cap_ms)
  local deadline = math.min(now + tonumber(l.ttl), cap)
  leave_queue(l)
  redis.call('HSET', lease_key(l.id), 'phase', 'active', 'guest', g.name, 'incarnation', g.incarnation, 'granted', now,
    'deadline', deadline, 'cap', cap, 'source', source, 'hit', hit and '1' or '0')
  redis.call('ZADD', base .. ':deadlines', deadline, l.id)
  count(hit and 'hits' or 'misses')
  g.lease = l.id
  move(g, 'leased', l.holder, '', '', { 'lease', l.id, 'uses', tonumber(g.uses or '0') + 1, 'health', '' })
end

-- hand_over gives g to the first request in line that it satisfies; requests that nobody asks for any more lapse.
-- Returns the lease id, or nil when nobody waits.
local function hand_over(g, p, source)
  if not enabled(p) then return nil end
  while true do
    local id = redis.call('ZRANGE', base .. ':queue:' .. g.pool, 0, 0)[1]
    if not id then return nil end
    local l = lease_of(id)
    local patience = tonumber(redis.call('ZSCORE', base .. ':patience', id) or '0')
    if l and patience >= now then
      grant(l, g, source, false)
      return id
    end
    drop_request(l or { id = id, pools = g.pool }, 'abandoned')
  end
end

local function shelved(p)
  local n = 0
  for _, pool in ipairs(split(p.pools)) do n = n + redis.call('ZCARD', index(pool, 'shelved')) end
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
  redis.call('HSET', guest_key(g.name), 'lease', '', 'health', '')
  local detail = o.detail or ''
  if (g.condemned or '') ~= '' then move(g, 'tainted', actor, g.condemned, detail)
  elseif o.hold and o.hold > 0 then
    redis.call('ZADD', base .. ':holds', now + o.hold, g.name)
    move(g, 'held', actor, 'hold', detail, { 'until', now + o.hold })
  elseif o.unwanted then move(g, 'tainted', actor, 'unwanted', detail)
  elseif not p then move(g, 'tainted', actor, 'removed', detail)
  elseif p.uses ~= '0' and tonumber(g.uses) >= tonumber(p.uses) then move(g, 'tainted', actor, 'uses', detail)
  elseif p.age ~= '0' and now - tonumber(g.born or '0') >= tonumber(p.age) then move(g, 'tainted', actor, 'age', detail)
  elseif p.reset == '1' or g.reset == '1' then move(g, 'resetting', actor, '', detail)
  else return shelve(g, p, actor, false, detail) end
  return nil
end

-- finish ends an active lease and sends its guest on; returns the lease that the guest was handed to, if any.
local function finish(l, how, outcome, actor, o)
  redis.call('ZREM', base .. ':deadlines', l.id)
  close(l, how, outcome)
  local g = guest_of(l.guest)
  if not g or g.lease ~= l.id or g.state ~= 'leased' then return nil end
  o.detail = how .. (outcome ~= '' and (': ' .. outcome) or '')
  return settle(g, policy(), actor, o)
end

local function may(l, owner, admin) return admin == '1' or l.owner == owner end

local function view(code, id, extra, again)
  local rank = redis.call('ZRANK', base .. ':queue', id)
  return { code, redis.call('HGETALL', lease_key(id)), rank and rank + 1 or 0, extra or '', again or '' }
end
