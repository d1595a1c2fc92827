-- calls.lua: carries out the calls. It stands behind all of them.
-- ARGV   1 how many calls  2... for each call: its name, how many arguments it has, its arguments
-- Result for each call its result, or "error" with what went wrong in it; then the ids of requests that have lapsed beside
-- Invariant: a call sees what the calls before it have done.
local results, at = {}, 2
while at <= #ARGV do
  local n = tonumber(ARGV[at + 1])
  results[#results + 1] = carry_out(ARGV[at], { unpack(ARGV, at + 2, at + 1 + n) })
  at = at + 2 + n
end
write_all()
results[#results + 1] = lapsed
return results
