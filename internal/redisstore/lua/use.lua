-- Use of tokens by one lease. Its own share of each second (s:<second>, the
-- last 61) and of each quota period (p:<period>, the last three, in order) is
-- kept, so that a final count below an earlier one is taken from that share
-- and from nobody else's.
local function note_second(l, n)
  local name, second = base .. 'lease:' .. l.id, second_of(now)
  if second > l.last then
    local old = {} -- all that has left the window since the latest use
    for s = l.last - 61, math.min(l.last, second - 61) do old[#old + 1] = 's:' .. int(s) end
    if #old > 0 then redis.call('HDEL', name, unpack(old)) end
    redis.call('HSET', name, 'last', second)
    l.last = second
  end
  redis.call('HINCRBY', name, 's:' .. int(second), n)
end

local function periods_of(l)
  local all = {}
  for p in l.periods:gmatch('[^\n]+') do all[#all + 1] = p end
  return all
end

local function note_period(l, period, n)
  local name, all = base .. 'lease:' .. l.id, periods_of(l)
  if all[#all] ~= period then
    for i = #all, 1, -1 do
      if all[i] == period then table.remove(all, i) end
    end
    all[#all + 1] = period
    if #all > 3 then redis.call('HDEL', name, 'p:' .. table.remove(all, 1)) end
    l.periods = table.concat(all, '\n')
    redis.call('HSET', name, 'periods', l.periods)
  end
  redis.call('HINCRBY', name, 'p:' .. period, n)
end

-- grow counts n tokens used since the last report: in the current second, in
-- the quota, out of the reservation. What exceeds it is debt in the window.
local function grow(l, n, period)
  add(window('tokens', l.key), now, n)
  note_second(l, n)
  if quota_add(l.key, period, n) then note_period(l, period, n) end
  debt_grow(l.key, n)
  l.total = redis.call('HINCRBY', base .. 'lease:' .. l.id, 'total', n)
  if l.held > 0 then hold(l, -math.min(n, l.held)) end
  reserve(l, -math.min(n, l.reserved))
end

-- shrink gives n tokens back that were not used after all, newest first.
local function shrink(l, n)
  local name, w, left = base .. 'lease:' .. l.id, window('tokens', l.key), n
  for s = l.last, l.last - 60, -1 do
    if left <= 0 then break end
    local field = 's:' .. int(s)
    local share = math.min(left, tonumber(redis.call('HGET', name, field)) or 0)
    if share > 0 then
      take(w, s, share)
      redis.call('HINCRBY', name, field, -share)
      left = left - share
    end
  end
  local all = periods_of(l)
  left = n
  for i = #all, 1, -1 do
    local share = math.min(left, tonumber(redis.call('HGET', name, 'p:' .. all[i])) or 0)
    if share > 0 then
      quota_add(l.key, all[i], -share)
      redis.call('HINCRBY', name, 'p:' .. all[i], -share)
      left = left - share
    end
  end
  debt_grow(l.key, -n)
  l.total = redis.call('HINCRBY', name, 'total', -n)
end
