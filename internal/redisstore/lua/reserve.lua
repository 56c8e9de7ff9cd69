-- ARGV: lease, tokens, six caps. A lease reserves once.
if not known_epoch() then return { mark, 'epoch' } end
local tokens, caps = tonumber(ARGV[4]), caps_at(5)
expire()
local l = load(ARGV[3])
if not l or l.has_reserved then return { mark, 'lease' } end
local requests, used = slide(window('requests', l.key)), slide(window('tokens', l.key))
local verdict, wait = check_tokens(used, l.key, account(l.key).reserved, caps, tokens)
if verdict == 'ok' then
  redis.call('HSET', base .. 'lease:' .. l.id, 'has_reserved', 1)
  reserve(l, tokens) -- in full, also above the limit
end
return decision(verdict, wait, requests, used, l.key, caps)
