-- Redis time in µs (docs/limits.md, "More than one replica"). It stays below 2^53, so a Lua number
-- holds it exactly, like every count here: the caller bounds them.
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end
