-- renew.lua: heartbeat of an active lease; its deadline moves to now + ttl, never past its cap. Doing it twice is doing it once.
-- ARGV   1 id  2 owner  3 admin
-- Result ok, lease, position  |  unknown | not_yours | queued | over
local l = lease_of(ARGV[1])
if not l then return { 'unknown' } end
if not may(l.owner, ARGV[2], ARGV[3]) then return { 'not_yours' } end
if l.phase == 'queued' then return { 'queued' } end
if l.phase == 'ended' then return { 'over', l.how } end
local deadline = math.min(now + tonumber(l.ttl), tonumber(l.cap))
if deadline <= now then return { 'over', 'expired' } end
local before = tonumber(l.deadline)
l.deadline = as_text(deadline)
write_lease(l)
if deadline < before then -- which a gap had moved
  later(index(redis.call('HGET', guest_key(l.guest), 'pool'), 'leased'), l.guest, l.deadline)
end
return view('ok', l.id)
