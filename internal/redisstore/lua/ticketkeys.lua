-- ARGV: the key that the replica seals with (may be empty), a fresh one, and how
-- many µs a key seals. The reply: the keys, newest first. The first replica makes
-- one; after a loss of data it brings its own back, so that tickets on the way stay
-- good. Keys are kept for a while after they have sealed.
if not known_epoch() then return { mark, 'epoch' } end
local name, current, fresh, life = base .. 'ticket-keys', ARGV[3], ARGV[4], tonumber(ARGV[5])
local made = base .. 'ticket-keys.made'
local function make(key)
  redis.call('LPUSH', name, key)
  redis.call('LTRIM', name, 0, 2)
  redis.call('SET', made, int(now))
end
if redis.call('LLEN', name) == 0 then
  make(current ~= '' and current or fresh)
elseif now - (tonumber(redis.call('GET', made)) or 0) >= life then
  make(fresh)
end
local reply = { mark, 'ok' }
for _, key in ipairs(redis.call('LRANGE', name, 0, -1)) do reply[#reply + 1] = key end
return reply
