-- release.lua: end a lease, or cancel a request. Idempotent: an ended lease is answered as it ended.
-- ARGV   1 id  2 owner  3 admin  4 outcome  5 hold ms (0: none)  6 shelve (1 or 0)  7 actor  8 how
-- Result ok, lease, position, lease that the guest was handed to, "again" when it had ended before  |  unknown | not_yours | budget
local l = lease_of(ARGV[1])
if not l then return { 'unknown' } end
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
local handed = finish(l, ARGV[8], ARGV[4], ARGV[7], { hold = hold, unwanted = ARGV[6] == '0' })
return view('ok', l.id, handed or '')
