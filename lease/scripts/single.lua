-- single.lua: carries out turns that come without other calls, as calls.lua would.
-- ARGV   those of turns.lua
-- Result as that of calls.lua
local result = carry_out('turns', ARGV)
write_all()
return { result, lapsed }
