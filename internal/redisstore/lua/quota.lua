-- Quota counters of a key: u:<period> -> tokens used, n:<period> -> its number,
-- by which the oldest of more than three goes, b:<period> -> what it began with
-- in the epoch e:<period>. A counter is kept for 400 days
-- after its last use; one that is gone is asked for again (ErrUnseeded).
local function quota_used(key, period)
  return tonumber(redis.call('HGET', base .. 'quota:' .. key, 'u:' .. period))
end

-- quota_add counts n (below 0: gives back) in a period that is known. One that
-- is not known is not started: its seed will hold these tokens.
local function quota_add(key, period, n)
  local used = quota_used(key, period)
  if not used then return false end
  redis.call('HSET', base .. 'quota:' .. key, 'u:' .. period, int(math.max(0, used + n)))
  redis.call('EXPIRE', base .. 'quota:' .. key, 400 * 86400)
  return true
end

-- quota_seed starts a counter that is not known. began, below used where some of
-- it is a replica's own growth, is what it is raised from.
local function quota_seed(key, period, used, began)
  if quota_used(key, period) then return end
  local name, numbers, oldest, newest, known = base .. 'quota:' .. key, {}, nil, 0, 0
  local all = redis.call('HGETALL', name)
  for i = 1, #all, 2 do
    if all[i]:sub(1, 2) == 'n:' then numbers[all[i]:sub(3)] = tonumber(all[i + 1]) end
  end
  for p, n in pairs(numbers) do
    known, newest = known + 1, math.max(newest, n)
    if not oldest or n < numbers[oldest] then oldest = p end
  end
  if known >= 3 then redis.call('HDEL', name, 'u:' .. oldest, 'n:' .. oldest, 'b:' .. oldest, 'e:' .. oldest) end
  redis.call('HSET', name, 'u:' .. period, used, 'n:' .. period, newest + 1, 'b:' .. period, began or used, 'e:' .. period, ARGV[2])
  redis.call('EXPIRE', name, 400 * 86400)
end

-- quota_raise: a replica knew of more, before all was lost, than the one that
-- started the counter again. What each added since stands beside it.
local function quota_raise(key, period, known)
  local name = base .. 'quota:' .. key
  local began = redis.call('HGET', name, 'e:' .. period) == ARGV[2] and tonumber(redis.call('HGET', name, 'b:' .. period))
    or quota_used(key, period)
  if known > began then quota_add(key, period, known - began) end
  redis.call('HSET', name, 'b:' .. period, int(math.max(known, began)), 'e:' .. period, ARGV[2])
end
