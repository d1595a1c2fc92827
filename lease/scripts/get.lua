-- get.lua: look at one lease; looking at a queued one keeps it in line.
-- ARGV   1 id  2 owner  3 admin (1 or 0)
-- Result ok, lease, position  |  unknown | not_yours
local l = lease_of(ARGV[1])
if not l then return { 'unknown' } end
if not may(l.owner, ARGV[2], ARGV[3]) then return { 'not_yours' } end
if l.phase == 'queued' then
  local lapse = now + tonumber(l.patience)
  if l.wait_until ~= '0' then lapse = math.min(lapse, tonumber(l.wait_until)) end
  redis.call('ZADD', base .. ':patience', 'XX', lapse, l.id)
end
return view('ok', l.id)
