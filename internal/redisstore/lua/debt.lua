-- What a key has used and its tokens per minute have not paid yet. debt:<key>:
-- unpaid tokens, the µs at which it was that much, the limit of the key's last
-- decision. The limit pays limit / 60 a second; what is unpaid beyond one whole
-- limit is debt, at most 60 limits of it.
local DEBT_SPAN = 60

-- debt_of brings the debt of a key to now.
local function debt_of(key)
  local v = redis.call('HMGET', base .. 'debt:' .. key, 'unpaid', 'at', 'limit')
  local d = { key = key, unpaid = tonumber(v[1]) or 0, limit = tonumber(v[3]) or 0 }
  d.unpaid = math.max(0, d.unpaid - d.limit * math.max(0, now - (tonumber(v[2]) or now)) / WINDOW)
  return d
end

local function debt_store(d)
  d.unpaid = math.min(d.unpaid, (1 + DEBT_SPAN) * math.max(0, d.limit))
  redis.call('HSET', base .. 'debt:' .. d.key, 'unpaid', string.format('%.17g', d.unpaid), 'at', int(now), 'limit', int(d.limit))
  redis.call('PEXPIRE', base .. 'debt:' .. d.key, (2 + DEBT_SPAN) * 60000)
end

-- debt_under notes the limit of a decision; below 1 there is none.
local function debt_under(key, limit)
  local d = debt_of(key)
  if limit < 1 then
    if d.limit > 0 then redis.call('DEL', base .. 'debt:' .. key) end
    return { key = key, unpaid = 0, limit = 0 }
  end
  if d.limit ~= limit then
    d.limit = limit
    debt_store(d)
  end
  return d
end

-- debt_grow counts n tokens; below 0 they were not used after all.
local function debt_grow(key, n)
  local d = debt_of(key)
  if d.limit < 1 then return end
  d.unpaid = math.max(0, d.unpaid + n)
  debt_store(d)
end

-- debt_raise makes the unpaid tokens so many at least.
local function debt_raise(key, limit, unpaid)
  local d = debt_under(key, limit)
  if d.limit < 1 then return end
  d.unpaid = math.max(d.unpaid, unpaid)
  debt_store(d)
end

-- debt_over is what is owed. The part of a token below 1e-6 is no debt: a client that
-- waits as long as was said must not be refused for the rounding of a sum.
local function debt_over(d)
  local over = d.unpaid - math.max(0, d.limit)
  if over > 1e-6 then return over end
  return 0
end

local function debt_tokens(d) return math.ceil(debt_over(d)) end

-- debt_wait: µs until nothing is owed.
local function debt_wait(d)
  if d.limit < 1 then return 0 end
  return math.ceil(debt_over(d) * WINDOW / d.limit)
end
