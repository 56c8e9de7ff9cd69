-- A sliding window of 60 s in one-second buckets, as a sorted set and a hash.
-- when: second -> µs of the newest event in it; a bucket leaves as a whole when
-- that event is 60 s old, so no real 60 s is ever counted too low and an event
-- stays less than a second too long. sums: second -> count, and their total.
local function window(kind, key)
  return { when = base .. kind .. '.when:' .. key, sums = base .. kind .. '.sums:' .. key }
end

local function forget(w, seconds)
  redis.call('ZREM', w.when, unpack(seconds))
  redis.call('HDEL', w.sums, unpack(seconds))
end

-- slide drops what is too old and reads w.total and w.newest (nil when empty).
local function slide(w)
  local due = redis.call('ZRANGEBYSCORE', w.when, '-inf', now - WINDOW)
  if #due > 0 then
    local gone = 0
    for _, n in ipairs(redis.call('HMGET', w.sums, unpack(due))) do gone = gone + (tonumber(n) or 0) end
    forget(w, due)
    if gone > 0 then redis.call('HINCRBY', w.sums, 'total', -gone) end
  end
  local last = redis.call('ZREVRANGE', w.when, 0, 0, 'WITHSCORES')
  w.newest = tonumber(last[2])
  w.total = w.newest and tonumber(redis.call('HGET', w.sums, 'total')) or 0
  if not w.newest then redis.call('DEL', w.sums) end
  return w
end

-- add counts n that happened at an instant; what is older than the window is
-- not counted. The oldest second may have left already, and who counted in it
-- then would give back (take) what is not theirs: what falls there goes into the
-- next one, so it too stays less than a second too long.
local function add(w, at, n)
  if n <= 0 or at <= now - WINDOW then return end
  at = math.max(at, (second_of(now) - 59) * SECOND)
  local second = int(second_of(at))
  redis.call('ZADD', w.when, 'GT', at, second)
  redis.call('HINCRBY', w.sums, second, n)
  redis.call('HINCRBY', w.sums, 'total', n)
  -- An idle key costs nothing: both go long after their last bucket is too old.
  redis.call('PEXPIRE', w.when, 300000)
  redis.call('PEXPIRE', w.sums, 300000)
  if w.total then w.total, w.newest = w.total + n, math.max(w.newest or 0, at) end
end

-- take removes up to n from one second and returns how much that was.
local function take(w, second, n)
  second = int(second)
  local have = tonumber(redis.call('HGET', w.sums, second)) or 0
  n = math.min(n, have)
  if n <= 0 then return 0 end
  redis.call('HINCRBY', w.sums, 'total', -n)
  if n == have then forget(w, { second }) else redis.call('HINCRBY', w.sums, second, -n) end
  return n
end

-- until_at_most: µs until the count is at most x if nothing more is added.
local function until_at_most(w, x)
  local left = w.total
  local all = redis.call('ZRANGE', w.when, 0, -1, 'WITHSCORES')
  for i = 1, #all, 2 do
    if left <= x then break end
    left = left - (tonumber(redis.call('HGET', w.sums, all[i])) or 0)
    if left <= x then return tonumber(all[i + 1]) + WINDOW - now end
  end
  return 0
end

local function until_empty(w) return w.newest and w.newest + WINDOW - now or 0 end
