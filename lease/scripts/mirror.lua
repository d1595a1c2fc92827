-- mirror.lua: what a server must know to decide turns by itself, see turns.lua: the guests on top of the shelf. It stands last among the
-- calls of a script. What it tells is true until something voids it; see core.lua.
-- ARGV   1 version of the mirror  2 that of the one before  3 most guests of a pool
-- Result ok, uses, age ms, size, {pool, guests on the shelf, then a row of each on top, the last to be leased first}
--        |  kept: the one before is still true  |  none: more than turns happens here
if not voided and redis.call('GET', base .. ':mirror') == ARGV[2] then return { 'kept' } end
local p = policy()
local plain = p and enabled(p) and not known_override and p.reset ~= '1' and p.uses ~= '1' and redis.call('ZCARD', base .. ':queue') == 0
if not plain then return { 'none' } end
local tops = {}
for _, pool in ipairs(split(p.pools)) do
  write(index(pool, 'shelved'))
  local top = { pool, size(pool) }
  for _, name in ipairs(redis.call('ZRANGE', index(pool, 'shelved'), -tonumber(ARGV[3]), -1)) do
    local _, more = row(top, name)
    if more then return { 'none' } end
  end
  tops[#tops + 1] = top
end
redis.call('SET', base .. ':mirror', ARGV[1])
voided = false
return { 'ok', p.uses or '0', p.age or '0', p.size or '0', tops }
