-- ARGV: lease, key, sequences, tokens, what it may use in all of a quota, spent,
-- six caps. A request that runs already: nothing is refused. The reply tells what
-- the lease is afterwards, and the quota counter.
if not known_epoch() then return { mark, 'epoch' } end
expire()
local id, key, sequences, tokens, all, spent, caps =
  ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), caps_at(9)
local l = load(id)
if l and l.key ~= key then return { mark, 'lease' } end
if not l then
  -- Its request was counted when it came, and what it spent when it was spent.
  store({ id = id, key = key, slots = 1, wide = 1, granted = -1, held = 0, reserved = 0, total = spent, counted = 0 }, now + CLAIMED)
  l = lease_of(id)
end
debt_under(key, caps.tokens)
redis.call('HSET', base .. 'lease:' .. id, 'claimed', 1)
redis.call('ZADD', base .. 'leases', now + CLAIMED, id)
if spent > l.total then grow(l, spent - l.total, caps.period) end
if not l.has_reserved then
  redis.call('HSET', base .. 'lease:' .. id, 'has_reserved', 1)
  take_slots(l, more_slots(l, caps, sequences))
  reserve(l, math.max(0, tokens - l.total))
  if caps.quota >= 0 then
    l.granted = l.total
    hold(l, math.max(0, all - l.total))
  end
end
return {
  mark, 'ok', l.slots, l.wide, int(l.reserved), int(l.total), int(l.granted), caps.quota > 0 and quota_used(key, caps.period) or -1,
}
