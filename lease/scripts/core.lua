-- core.lua and lib.lua stand in front of the calls, and calls.lua behind them. Together they are one script, which carries out a list of
-- calls on one cache: what comes in at the same time goes to Redis at once. Each call stands in a file of its own, as the body
-- of a function of ARGV. Turns, which are most calls of a busy cache, need nothing of lib.lua, and go without: to make its functions
-- takes Redis longer than to carry out a turn.
--
-- KEYS[1]  base of the keys of one cache, "<prefix>:{<cache>}". Every key a script touches begins with it, so that all of
--          them live in one slot of a Redis Cluster.
-- Result   of a call: an array: a code ("ok", or the fact that stood in the way), then what the call's header names.
--
-- Keys below the base:
--   policy          hash   the cache's settings in force (absent: the spec has the cache no more)
--   override        hash   enabled, until, by: the run-time knob over the policy
--   guests          set    names of the guests on record;  pools: of the pools that it ever had a guest of
--   guest:<name>    hash   one guest; its field state is {state, ms since when, uses, lease}, its field address {host, port, user, host key}, a
--                          line each
--   in:<pool>:<state>  zset  guest name -> ms since when; the state "shelved" is the shelf. Where the state is "leased": ms until which its lease
--                          surely goes on, which is the deadline or earlier: who comes next to a guest leaves it in its place
--   lease:<id>      string one lease or request; see lease_of
--   mirror          string version of the server's mirror of the cache, while that is true; see mirror.lua
--   queue           zset   request id -> number in line;  queue:<pool> the same for those that the pool satisfies
--   patience        zset   request id -> ms when it lapses unless asked for again
--   holds, quarantine  zset  guest name -> ms of the end
--   over            list   the leases on record that have ended, the first first: ms of the end, a space, id
--   stats           hash   counters;  events:<guest> stream: its history, bounded; see record
--   slots, incarnations  hash  (pools only) slot -> cache; slot -> last incarnation;  lowest: no slot below it is free
--   shards          hash   (pools only) slot -> shard of its guest;  shard:<id> set: the slots of one
--
-- Invariants: a guest is in exactly one index; a pool with a waiting request and a shelved guest in the same enabled cache
-- does not exist after any call; a lease counts once as hit or miss, at its grant.

local base = KEYS[1]
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

-- What many calls write to is written once, at the end: the sorted sets in:…, the list over, and the counters. Who
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

-- A lease is one text, which costs a third of a hash of its fields. Each field is a line, and the last may have several: 1 phase
-- 2 ended 3 how 4 outcome 5 owner 6 guest 7 incarnation 8 granted 9 deadline 10 cap 11 source 12 hit 13 wait until 14 created,
-- and then the wish, which never changes: 15 id 16 holder 17 pools 18 ttl 19 longest ttl 20 patience 21 idempotency key
-- 22 fingerprint 23 public key. Times are in ms; package lease reads and writes the same lines.
-- Writing a text is one long concatenation, because that is what Lua is quickest at.
--
-- running_text is a lease that is not over. Its head are the lines up to the incarnation: the phase has six letters, and three empty
-- lines follow it. Of this and of other texts, turns make once what is the same for many: hence the functions for their parts.
local function running_times(granted, deadline, cap, source, hit, wait_until, created)
  return granted .. '\n' .. deadline .. '\n' .. cap .. '\n' .. source .. '\n' .. hit .. '\n' .. wait_until .. '\n' .. created .. '\n'
end
local function running_text(head, granted, deadline, cap, source, hit, wait_until, created, wish)
  return head .. running_times(granted, deadline, cap, source, hit, wait_until, created) .. wish
end

-- ended_text is a lease that is over, which it was not before.
local function ended_head(how, outcome) return 'ended\n' .. stamp .. '\n' .. how .. '\n' .. outcome .. '\n' end
local function ended_text(text, how, outcome) return ended_head(how, outcome) .. string.sub(text, 11) end

-- state_text is what a guest's field state is from now on. It is one text, because what turns change is written at once.
local function state_head(state) return state .. '\n' .. stamp .. '\n' end
local function state_text(state, uses, lease) return state_head(state) .. uses .. '\n' .. lease end

-- record adds to a guest's history: as e an event, or as two the end of a lease with the beginning of the next behind it. It cuts the history
-- only where it is told to: to look whether one is too long costs as much as to write.
local function record(name, cut, what, entry)
  local key = base .. ':events:' .. name
  if cut then redis.call('XADD', key, 'MAXLEN', '~', '200', '*', what, entry) else redis.call('XADD', key, '*', what, entry) end
end

-- The settings, and what is known of shelves and queues, are read once for all calls; what changes them forgets them.
local known_policy, known_override
local shelves, sizes, queues = {}, {}, {}
local lapsed = {} -- requests that ended while something else was done
local calls = {}

-- carry_out has one call done, which takes no other with it where it goes wrong.
local function carry_out(name, args)
  local well, result = pcall(calls[name], args)
  if well then return result end
  voided = true
  known_policy, known_override, shelves, sizes, queues = nil, nil, {}, {}, {}
  return { 'error', type(result) == 'table' and result.err or tostring(result) }
end
