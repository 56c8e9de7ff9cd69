-- ARGV: lease. One lease, one stream: claiming it again is refused. The reply
-- tells what the lease is, for a replica that did not acquire it itself.
if not known_epoch() then return { mark, 'epoch' } end
expire()
local l = load(ARGV[3])
if not l or l.claimed then return { mark, 'lease' } end
redis.call('HSET', base .. 'lease:' .. l.id, 'claimed', 1)
redis.call('ZADD', base .. 'leases', now + CLAIMED, l.id)
return { mark, 'ok', l.key, l.slots, l.wide, l.has_reserved and 1 or 0, l.reserved, l.total, int(l.granted) }
