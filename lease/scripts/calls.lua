-- calls.lua: carries out the calls. It stands behind all of them.
-- ARGV   1 how many calls  2... for each call: its name, how many arguments it has, its arguments
-- Result for each call its result, or "error" with what went wrong in it; then the ids of requests that have lapsed beside
-- Invariant: a call sees what the calls before it have done; one that goes wrong takes no other with it.
local results, at = {}, 2
while at <= #ARGV do
  local n = tonumber(ARGV[at + 1])
  local well, result = pcall(calls[ARGV[at]], { unpack(ARGV, at + 2, at + 1 + n) })
  if not well then
    voided = true
    known_policy, known_override, shelves, sizes, queues = nil, nil, {}, {}, {}
    result = { 'error', type(result) == 'table' and result.err or tostring(result) }
  end
  results[#results + 1] = result
  at = at + 2 + n
end
write_all()
results[#results + 1] = lapsed
return results
