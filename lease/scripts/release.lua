-- release.lua: end a lease, or cancel a request. Idempotent: an ended lease is answered as it ended.
-- ARGV   1 id  2 owner  3 admin  4 outcome  5 hold ms (0: none)  6 shelve (1 or 0)  7 actor  8 how
-- Result ok, lease, position, lease that the guest was handed to, "again" when it had ended before, guest, the state that the
--        guest is in now (where the lease was active)  |  unknown | not_yours | budget
local values = lease_values(ARGV[1])
if not values[1] then return { 'unknown' } end
local l = { id = values[1], owner = values[3], phase = values[4], pools = values[5], guest = values[6] }
if not may(l, ARGV[2], ARGV[3]) then return { 'not_yours' } end
if l.phase == 'ended' then return view('ok', l.id, '', 'again') end
if l.phase == 'queued' then
  drop_request(l, 'cancelled')
  return view('ok', l.id)
end
local hold = tonumber(ARGV[5])
if hold > 0 then
  local p = policy()
  if not p or redis.call('ZCARD', base .. ':holds') >= tonumber(p.hold_max) then return { 'budget' } end
  hold = math.min(hold, tonumber(p.hold_for))
end
local handed, state = finish(l, ARGV[8], ARGV[4], ARGV[7], { hold = hold, unwanted = ARGV[6] == '0' })
values[4], values[14], values[15], values[16] = 'ended', stamp, ARGV[8], ARGV[4]
return { 'ok', values, 0, handed or '', '', '', state or '' }
