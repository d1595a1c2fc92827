-- move.lua: one compare-and-set step of a guest.
-- ARGV   1 name  2 incarnation (0: any)  3 states it may be in (comma list)  4 state to go to  5 actor  6 reason  7 detail
--        8 run that must have it claimed (empty: any)  9 fencing token of the writer (0: none)  10... fields to set, in pairs
-- Result ok, guest, lease that it was handed to, since when it was on order (ms) if it is ready by this, else 0
--        |  unknown | leased | budget | conflict, state, incarnation
-- Invariant: never out of leased, never into it but by hand_over; a writer is refused once a later one has moved the guest.
local g = guest_of(ARGV[1])
if not g then return { 'unknown' } end
if g.state == 'leased' then return { 'leased' } end
local allowed = false
for _, state in ipairs(split(ARGV[3])) do allowed = allowed or state == g.state end
if not allowed or (ARGV[2] ~= '0' and ARGV[2] ~= g.incarnation) or (ARGV[8] ~= '' and ARGV[8] ~= g.run) or ARGV[4] == 'leased' then
  return { 'conflict', g.state, g.incarnation }
end
local fence = tonumber(ARGV[9])
if fence > 0 and tonumber(g.fence or '0') > fence then return { 'conflict', g.state, g.incarnation } end
local to, p = ARGV[4], policy()
if to == 'held' and (not p or g.state ~= 'held' and redis.call('ZCARD', base .. ':holds') >= tonumber(p.hold_max)) then return { 'budget' } end
local fields, handed = { unpack(ARGV, 10) }, nil
if fence > 0 then redis.call('HSET', guest_key(g.name), 'fence', fence) end
if #fields > 0 then redis.call('HSET', guest_key(g.name), unpack(fields)) end
for i = 1, #fields, 2 do g[fields[i]] = fields[i + 1] end
if g.state == 'replacing' and to == 'booting' and (g.reason or '') ~= '' then count('removals:' .. g.reason) end
local fresh = g.state == 'booting' or g.state == 'preparing'
if to == 'ready' then to = (p and p.prepare == '1' and g.state == 'booting') and 'preparing' or 'shelved' end
if to == 'gone' then
  event(g, 'gone', ARGV[5], ARGV[6], ARGV[7])
  later(index(g.pool, g.state), g.name, false)
  reshelved(g, 'gone')
  redis.call('ZREM', base .. ':holds', g.name)
  redis.call('ZREM', base .. ':quarantine', g.name)
  redis.call('SREM', base .. ':guests', g.name)
  redis.call('DEL', guest_key(g.name))
  if ARGV[6] ~= '' then count('removals:' .. ARGV[6]) end
  return { 'ok', {}, '', '0' }
elseif to == 'shelved' and not p then move(g, 'tainted', ARGV[5], 'removed', ARGV[7])
elseif to == 'shelved' then handed = shelve(g, p, ARGV[5], fresh, ARGV[7])
elseif to == 'held' then
  move(g, to, ARGV[5], ARGV[6], ARGV[7])
  redis.call('ZADD', base .. ':holds', g['until'], g.name) -- after move, which ends the hold of a held one
elseif to == 'booting' then
  g.uses = '0'
  move(g, to, ARGV[5], ARGV[6], ARGV[7], 'born', stamp)
else move(g, to, ARGV[5], ARGV[6], ARGV[7]) end
return { 'ok', redis.call('HGETALL', guest_key(g.name)), handed or '', g.since_order or '0' }
