-- Leases. leases: id -> µs of its expiry, over all keys. lease:<id>: what it
-- holds. key:<key>: leases, slots, reserved tokens and what is held of the quota,
-- of a key; global: slots, reserved and expired of all.
local function tally(key, field, n)
  if n == 0 then return end
  redis.call('HINCRBY', base .. 'key:' .. key, field, n)
  redis.call('HINCRBY', base .. 'global', field, n)
end

local function account(key)
  local v = redis.call('HMGET', base .. 'key:' .. key, 'leases', 'slots', 'reserved', 'held')
  return {
    leases = tonumber(v[1]) or 0, slots = tonumber(v[2]) or 0, reserved = tonumber(v[3]) or 0, held = tonumber(v[4]) or 0,
  }
end

-- lease_of reads a lease, dead or alive; nil for an unknown id. counted is the second that
-- its request was counted in, last the second of its latest use. slots are of the
-- key, wide of the gateway; granted is what it may use in all by its quota, below
-- 0 without one, and held what is open of that.
local function lease_of(id)
  local v = redis.call('HMGET', base .. 'lease:' .. id,
    'key', 'slots', 'claimed', 'has_reserved', 'reserved', 'total', 'counted', 'last', 'periods', 'wide', 'granted', 'held')
  if not v[1] then return nil end
  return {
    id = id, key = v[1], slots = tonumber(v[2]), claimed = v[3] == '1', has_reserved = v[4] == '1',
    reserved = tonumber(v[5]), total = tonumber(v[6]), counted = tonumber(v[7]), last = tonumber(v[8]), periods = v[9],
    wide = tonumber(v[10]), granted = tonumber(v[11]), held = tonumber(v[12]),
  }
end

local function count_slots(key, own, wide)
  if own ~= 0 then redis.call('HINCRBY', base .. 'key:' .. key, 'slots', own) end
  if wide ~= 0 then redis.call('HINCRBY', base .. 'global', 'slots', wide) end
end

-- store creates a lease that ends at an instant unless it is renewed.
local function store(l, expires)
  redis.call('HSET', base .. 'lease:' .. l.id, 'key', l.key, 'slots', l.slots, 'wide', l.wide,
    'granted', l.granted, 'held', l.held,
    'claimed', l.claimed and 1 or 0, 'has_reserved', l.has_reserved and 1 or 0,
    'reserved', l.reserved, 'total', l.total, 'counted', l.counted, 'last', second_of(now), 'periods', '')
  redis.call('ZADD', base .. 'leases', expires, l.id)
  tally(l.key, 'leases', 1)
  count_slots(l.key, l.slots, l.wide)
  tally(l.key, 'reserved', l.reserved)
  if l.held > 0 then redis.call('HINCRBY', base .. 'key:' .. l.key, 'held', l.held) end
end

-- take gives slots to a lease.
local function take_slots(l, own, wide)
  if own == 0 and wide == 0 then return end
  l.slots, l.wide = l.slots + own, l.wide + wide
  redis.call('HSET', base .. 'lease:' .. l.id, 'slots', l.slots, 'wide', l.wide)
  count_slots(l.key, own, wide)
end

-- hold takes n tokens more of the quota; below 0 gives them back.
local function hold(l, n)
  l.held = l.held + n
  if n > 0 then l.granted = l.granted + n end
  redis.call('HSET', base .. 'lease:' .. l.id, 'granted', int(l.granted), 'held', int(l.held))
  if n ~= 0 then redis.call('HINCRBY', base .. 'key:' .. l.key, 'held', int(n)) end
end

-- reserve changes what a lease holds of its reservation by n.
local function reserve(l, n)
  if n == 0 then return end
  l.reserved = redis.call('HINCRBY', base .. 'lease:' .. l.id, 'reserved', n)
  tally(l.key, 'reserved', n)
end

-- drop removes a lease with all that it holds; what it spent stays.
local function drop(l, give_back_request)
  tally(l.key, 'reserved', -l.reserved)
  count_slots(l.key, -l.slots, -l.wide)
  if l.held ~= 0 then redis.call('HINCRBY', base .. 'key:' .. l.key, 'held', int(-l.held)) end
  tally(l.key, 'leases', -1)
  if give_back_request then take(window('requests', l.key), l.counted, 1) end
  redis.call('ZREM', base .. 'leases', l.id)
  redis.call('DEL', base .. 'lease:' .. l.id)
  if account(l.key).leases <= 0 then redis.call('DEL', base .. 'key:' .. l.key) end
end

-- bury ends a lease whose life is over. One that was never claimed gives its
-- request back as well, a claimed one lost its replica.
local function bury(l)
  drop(l, not l.claimed)
  redis.call('HINCRBY', base .. 'global', 'expired', 1)
end

-- load returns a live lease, nil for any other id. A dead one that expire has not
-- come to is gone as well: what is written to it would outlive its entry in leases.
local function load(id)
  local l = lease_of(id)
  if not l then return nil end
  local ends = tonumber(redis.call('ZSCORE', base .. 'leases', id))
  if ends and ends > now then return l end
  bury(l)
  return nil
end

-- expire ends leases whose life is over; true when there may be more. Bounded, so
-- that no decision waits for thousands.
local function expire()
  local due = redis.call('ZRANGEBYSCORE', base .. 'leases', '-inf', now, 'LIMIT', 0, 500)
  for _, id in ipairs(due) do
    local l = lease_of(id)
    if l then bury(l) else redis.call('ZREM', base .. 'leases', id) end
  end
  return #due == 500
end
