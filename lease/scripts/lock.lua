-- lock.lua: one writer per shard, by a lease with a fencing token. KEYS[1] is the base of the shard's pool.
-- ARGV   1 shard  2 writer  3 ttl ms (0: let go)
-- Result ok, token  |  locked, writer
-- Invariant: a token is never given twice, and a later writer's is higher.
local key = base .. ':lock:' .. ARGV[1]
local l = hash(key)
local ttl = tonumber(ARGV[3])
if l and l.writer ~= ARGV[2] and tonumber(l['until']) > now then return { 'locked', l.writer } end
if ttl == 0 then
  redis.call('DEL', key)
  return { 'ok', 0 }
end
local token = l and l.writer == ARGV[2] and l.token or redis.call('INCR', base .. ':fence')
redis.call('HSET', key, 'writer', ARGV[2], 'token', token, 'until', now + ttl)
return { 'ok', tonumber(token) }
