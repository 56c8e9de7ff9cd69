-- ARGV: leases. A provisional one is not prolonged: only a stream keeps a
-- lease. The reply: whether each is known.
if not known_epoch() then return { mark, 'epoch' } end
expire()
local reply = { mark, 'ok' }
for i = 3, #ARGV do
  local claimed = redis.call('HGET', base .. 'lease:' .. ARGV[i], 'claimed')
  if claimed == '1' then redis.call('ZADD', base .. 'leases', 'XX', now + CLAIMED, ARGV[i]) end
  reply[#reply + 1] = claimed and 1 or 0
end
return reply
