-- ARGV: replica. Without an epoch in ARGV[2] it is the first word of a replica
-- that comes or comes back; ARGV[4] is then the epoch of a Redis that has none.
-- The reply: the epoch, how many replicas were heard of in the last 10 s, and
-- whether more dead leases wait to be removed.
if ARGV[2] == '' then
  redis.call('SET', base .. 'epoch', ARGV[4], 'NX')
elseif not known_epoch() then
  return { mark, 'epoch' }
end
redis.call('ZREMRANGEBYSCORE', base .. 'replicas', '-inf', now)
redis.call('ZADD', base .. 'replicas', now + 10 * SECOND, ARGV[3])
return {
  mark, 'ok', redis.call('GET', base .. 'epoch'), redis.call('ZCARD', base .. 'replicas'), expire() and 1 or 0,
}
