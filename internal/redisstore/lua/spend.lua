-- ARGV: lease, total, period for each. Unknown leases are skipped, a total
-- below an earlier one is ignored. The reply: whether the lease is known and
-- the quota counter afterwards (-1: not known), for each.
if not known_epoch() then return { mark, 'epoch' } end
expire()
local reply = { mark, 'ok' }
for i = 3, #ARGV, 3 do
  local l, period = load(ARGV[i]), ARGV[i + 2]
  if l and tonumber(ARGV[i + 1]) > l.total then grow(l, ARGV[i + 1] - l.total, period) end
  reply[#reply + 1] = l and 1 or 0
  reply[#reply + 1] = l and quota_used(l.key, period) or -1
end
return reply
