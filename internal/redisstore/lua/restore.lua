-- ARGV: key, µs ago, tokens, requests.
if not known_epoch() then return { mark, 'epoch' } end
local at = now - ARGV[4]
add(window('tokens', ARGV[3]), at, tonumber(ARGV[5]))
add(window('requests', ARGV[3]), at, tonumber(ARGV[6]))
return { mark, 'ok' }
