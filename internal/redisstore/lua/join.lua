-- What a replica decided alone is added to what all share, before its first
-- shared decision (docs/limits.md). ARGV: JSON of leases, windows and quotas, the
-- replica, the mark of this batch. The reply: the quota counters afterwards.
if not known_epoch() then return { mark, 'epoch' } end
expire()
local doc = cjson.decode(ARGV[3])
local joined = base .. 'joined:' .. ARGV[4]

local function counters()
  local reply = { mark, 'ok' }
  for _, r in ipairs(doc.quotas) do reply[#reply + 1] = quota_used(r.key, r.period) or r.used end
  return reply
end

-- Sent again because its answer was not seen: it was taken already.
if redis.call('GET', joined) == ARGV[5] then return counters() end
redis.call('SET', joined, ARGV[5], 'EX', 86400)

-- settle undoes what Redis did for calls that the replica had given up on: the
-- replica counted them itself, below.
local function settle(l, r)
  if l.total > r.acked then shrink(l, l.total - r.acked) end
  if not r.known then take(window('requests', l.key), l.counted, 1) end
end

for _, r in ipairs(doc.leases) do
  local l = load(r.id)
  if l and r.ended then
    -- Another replica's stream claimed it: not ours to end.
    if r.claimed or not l.claimed then
      settle(l, r)
      drop(l, false)
    end
  elseif l and l.claimed and not r.claimed then
    -- Another replica's stream claimed it: it tells what the lease is.
  elseif l then
    settle(l, r)
    redis.call('HSET', base .. 'lease:' .. l.id, 'total', r.total, 'has_reserved', r.has_reserved and 1 or 0)
    reserve(l, r.reserved - l.reserved)
    take_slots(l, r.slots - l.slots, r.wide - l.wide)
    if r.held ~= l.held then hold(l, r.held - l.held) end
    l.granted = r.granted
    redis.call('HSET', base .. 'lease:' .. l.id, 'granted', int(l.granted))
    if r.claimed then
      redis.call('HSET', base .. 'lease:' .. l.id, 'claimed', 1)
      redis.call('ZADD', base .. 'leases', now + CLAIMED, l.id)
    end
  else
    -- It expired here as unclaimed and gave its request back; the replica, which
    -- knows of a claim or gives it back itself, has counted it.
    if r.known and not r.kept then add(window('requests', r.key), now - r.age, 1) end
    if not r.ended then
      r.counted = second_of(now - r.age)
      store(r, r.claimed and now + CLAIMED or now - r.age + PROVISIONAL)
    end
  end
end

-- Use counts for the second it happened in. What is below 0 is given back; the
-- seconds of two clocks begin at different instants, hence the neighbours.
local function count(kind, key, at, n)
  if n > 0 then add(window(kind, key), at, n) end
  for _, s in ipairs({ 0, -1, 1 }) do
    if n < 0 then n = n + take(window(kind, key), second_of(at) + s, -n) end
  end
end
for _, r in ipairs(doc.windows) do
  count('tokens', r.key, now - r.age, r.tokens)
  debt_grow(r.key, r.tokens)
  count('requests', r.key, now - r.age, r.requests)
end

-- Debts that Redis has lost; what was used of late is in them.
for _, r in ipairs(doc.debts) do debt_raise(r.key, r.limit, r.unpaid) end

for _, r in ipairs(doc.quotas) do
  if not quota_add(r.key, r.period, r.grown) then
    quota_seed(r.key, r.period, int(r.used), int(r.used - r.grown))
  elseif r.lost then
    quota_raise(r.key, r.period, r.used - r.grown)
  end
end
return counters()
