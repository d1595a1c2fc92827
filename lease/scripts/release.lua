-- release.lua: end a lease, or cancel a request. Idempotent: an ended lease is answered as it ended.
-- ARGV   1 id  2 owner  3 admin  4 outcome  5 hold ms (0: none)  6 shelve (1 or 0)  7 actor  8 how
-- Result ok, lease, position, lease that the guest was handed to, "again" when it had ended before, "", "", the state that the guest is
--        in now (where the lease was active)  |  unknown | not_yours | budget
local id = ARGV[1]
local text = redis.call('GET', lease_key(id))
if not text then return { 'unknown' } end
local phase = string.sub(text, 1, 6)
if phase == 'ended\n' then
  if not may(lease_of(id).owner, ARGV[2], ARGV[3]) then return { 'not_yours' } end
  return view('ok', id, '', 'again')
end
local owner, guest = held_by(text)
if not may(owner, ARGV[2], ARGV[3]) then return { 'not_yours' } end
if phase == 'queued' then
  drop_request(lease_of(id), 'cancelled')
  return view('ok', id)
end
local hold = tonumber(ARGV[5])
if hold > 0 then
  local p = policy()
  if not p or redis.call('ZCARD', base .. ':holds') >= tonumber(p.hold_max) then return { 'budget' } end
  hold = math.min(hold, tonumber(p.hold_for))
end
local handed, state
text, handed, state = finish(id, text, guest, ARGV[8], ARGV[4], ARGV[7], { hold = hold, unwanted = ARGV[6] == '0' })
return { 'ok', text, 0, handed or '', '', '', '', state or '' }
