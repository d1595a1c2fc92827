-- lib.lua: what all calls but turns share: who gets which guest, and where a guest goes. See core.lua.

local function hash(key)
  local flat = redis.call('HGETALL', key)
  if #flat == 0 then return nil end
  local h = {}
  for i = 1, #flat, 2 do h[flat[i]] = flat[i + 1] end
  return h
end

-- state_of reads what state_text made: state, ms since when, uses, lease.
local function state_of(text) return string.match(text or '', '^(.-)\n(.-)\n(.-)\n(.*)$') end

local function guest_of(name)
  local g = hash(guest_key(name))
  if g then g.state, g.since, g.uses, g.lease = state_of(g.state) end
  return g
end

-- A lease is read by the patterns of its lines; see core.lua.
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

local function write_lease(l)
  local head = l.phase .. '\n\n\n\n' .. l.owner .. '\n' .. l.guest .. '\n' .. l.incarnation .. '\n'
  l.text = running_text(head, l.granted, l.deadline, l.cap, l.source, l.hit, l.wait_until, l.created, l.wish)
  redis.call('SET', lease_key(l.id), l.text)
end

-- held_by reads from the text of a lease that is not over: its owner and its guest.
local function held_by(text)
  local first = string.find(text, '\n', 11, true)
  return string.sub(text, 11, first - 1), string.sub(text, first + 1, string.find(text, '\n', first + 1, true) - 1)
end

local function how_it_ended(how, outcome) return how .. (outcome ~= '' and (': ' .. outcome) or '') end

-- history is one entry of a guest's history, a line for each of its fields, of which the detail may have several.
local function history(incarnation, from, to, actor, lease, reason, detail)
  return incarnation .. '\n' .. from .. '\n' .. to .. '\n' .. actor .. '\n' .. lease .. '\n' .. reason .. '\n' .. detail
end

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

local wanted = math.min(tonumber(ARGV[1]), 100) -- most guests that the calls can want of a shelf

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

-- move is the only place where a guest changes its state. Whose it is goes with the state: g.lease until g.deadline where that is leased,
-- else nobody's. Behind detail come fields and values of what else to set.
local function move(g, to, actor, reason, detail, ...)
  reason = reason or ''
  event(g, to, actor, reason, detail or '')
  if g.state ~= '' then later(index(g.pool, g.state), g.name, false) end
  if g.state == 'held' then redis.call('ZREM', base .. ':holds', g.name) end
  if g.state == 'quarantined' then redis.call('ZREM', base .. ':quarantine', g.name) end
  later(index(g.pool, to), g.name, to == 'leased' and g.deadline or stamp)
  redis.call('HSET', guest_key(g.name), 'state', state_text(to, g.uses or '0', to == 'leased' and g.lease or ''), 'reason', reason, 'health', '', ...)
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
  count(hit and 'hits' or 'misses')
  g.lease, g.deadline, g.uses = l.id, l.deadline, tonumber(g.uses or '0') + 1
  move(g, 'leased', l.holder)
end

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

-- finish ends an active lease and sends its guest on; returns the text of the lease, the lease that the guest was handed to, if
-- any, and the state that it is in now.
local function finish(id, text, guest, how, outcome, actor, o)
  text = close(id, text, how, outcome) -- first, because it may fail: who has no deadline never ends
  local v = redis.call('HMGET', guest_key(guest), 'pool', 'incarnation', 'state', 'born', 'condemned', 'reset', 'drawn')
  local state, _, uses, lease = state_of(v[3])
  if lease ~= id or state ~= 'leased' then return text end
  local g = { name = guest, pool = v[1], incarnation = v[2], state = state, lease = lease, uses = uses, born = v[4] or '0',
    condemned = v[5] or '', reset = v[6], drawn = v[7] }
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
    local has = redis.call('HMGET', guest_key(guest), 'state', 'address', 'health')
    local _, _, _, lease = state_of(has[1])
    if lease == id then address, health = has[2] or '', has[3] or '' end
  end
  return { code, text, place, extra or '', again or '', address, health }
end

-- row adds to a list what a mirror knows of a guest: name, pool, incarnation, uses, ms when it was born, address. It returns the guest's
-- lease, and whether there is more to do than a turn when that ends.
local function row(list, name)
  local v = redis.call('HMGET', guest_key(name), 'pool', 'incarnation', 'state', 'born', 'address', 'condemned', 'health', 'reason', 'reset')
  local _, _, uses, lease = state_of(v[3])
  list[#list + 1] = name
  for _, value in ipairs({ v[1] or '', v[2] or '', uses or '', v[4] or '', v[5] or '' }) do list[#list + 1] = value end
  return lease, (v[6] or '') .. (v[7] or '') .. (v[8] or '') ~= '' or v[9] == '1'
end
