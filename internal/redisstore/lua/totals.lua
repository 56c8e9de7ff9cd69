-- The gauges over all keys.
if not known_epoch() then return { mark, 'epoch' } end
expire()
local g = redis.call('HMGET', base .. 'global', 'slots', 'reserved', 'expired')
return {
  mark, 'ok', redis.call('ZCARD', base .. 'leases'), tonumber(g[1]) or 0, tonumber(g[2]) or 0, tonumber(g[3]) or 0,
}
