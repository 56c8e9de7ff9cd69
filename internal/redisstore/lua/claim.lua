-- ARGV: lease, and for the ticket of another replica its key and whether it takes a
-- slot. One lease, one stream: claiming it again is refused. A foreign lease that is
-- unknown is made: its replica could not tell of it. The reply tells what the lease
-- is, for a replica that did not acquire it itself.
if not known_epoch() then return { mark, 'epoch' } end
expire()
local l = load(ARGV[3])
if not l and ARGV[4] then
  local n = tonumber(ARGV[5])
  store({
    id = ARGV[3], key = ARGV[4], slots = n, wide = n, granted = -1, held = 0, reserved = 0, total = 0, counted = 0,
  }, now + CLAIMED)
  l = lease_of(ARGV[3])
end
if not l or l.claimed or ARGV[4] and l.key ~= ARGV[4] then return { mark, 'lease' } end
redis.call('HSET', base .. 'lease:' .. l.id, 'claimed', 1)
redis.call('ZADD', base .. 'leases', now + CLAIMED, l.id)
return { mark, 'ok', l.key, l.slots, l.wide, l.has_reserved and 1 or 0, l.reserved, l.total, int(l.granted) }
