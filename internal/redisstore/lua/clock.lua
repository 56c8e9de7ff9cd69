-- Redis time in µs (design §5, "Clocks"). It stays below 2^53, so a Lua number
-- holds it exactly, like every count here: the caller bounds them.
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end
