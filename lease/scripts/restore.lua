-- restore.lua: a holder comes back, with a token that proves its lease, after the store was lost.
-- ARGV   1 id  2 holder  3 owner  4 guest  5 incarnation  6 ttl ms  7 cap (ms since epoch)  8 granted (ms since epoch)
-- Result ok, lease, position, the lease that came back before by an older token, and ends  |  unknown | conflict | over
-- Invariant: only a quarantined guest of that very incarnation comes back; a lease that is on record wins over the token. Grants of one
-- incarnation follow each other, so that of two tokens the newer one is right.
local l = lease_of(ARGV[1])
if l then
  if l.phase == 'active' and l.guest == ARGV[4] and l.incarnation == ARGV[5] then return view('ok', l.id) end
  if l.phase ~= 'ended' then return { 'conflict', l.phase, l.incarnation } end -- its key was used again
  return { 'over', l.how }
end
local g = guest_of(ARGV[4])
if not g then return { 'unknown' } end
local older = g.state == 'leased' and g.reason == 'restored' and lease_of(g.lease)
if older and tonumber(older.granted) >= tonumber(ARGV[8]) then older = nil end
if not older and g.state ~= 'quarantined' or g.incarnation ~= ARGV[5] then return { 'conflict', g.state, g.incarnation } end
local deadline = math.min(now + tonumber(ARGV[6]), tonumber(ARGV[7]))
if deadline <= now then return { 'over', 'expired' } end
if older then close(older.id, older.text, 'expired', '') end
write_lease({ id = ARGV[1], phase = 'active', owner = ARGV[3], guest = g.name, incarnation = g.incarnation, granted = ARGV[8],
  deadline = as_text(deadline), cap = ARGV[7], source = 'shelf', hit = '0', wait_until = '0', created = ARGV[8],
  wish = ARGV[1] .. '\n' .. ARGV[2] .. '\n' .. g.pool .. '\n' .. ARGV[6] .. '\n0\n0\n\n\n' })
g.lease, g.deadline, g.uses = ARGV[1], as_text(deadline), tonumber(g.uses) + 1
move(g, 'leased', ARGV[2], 'restored')
return view('ok', ARGV[1], older and older.id)
