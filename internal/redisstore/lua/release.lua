-- ARGV: lease, total, period, give back the request, only if nobody has claimed it.
-- Idempotent: gone when there is nothing to release.
if not known_epoch() then return { mark, 'epoch' } end
expire()
local l, total = load(ARGV[3]), tonumber(ARGV[4])
if not l or ARGV[7] == '1' and l.claimed then return { mark, 'gone' } end
if total > l.total then grow(l, total - l.total, ARGV[5]) end
if total < l.total then shrink(l, l.total - total) end
drop(l, ARGV[6] == '1')
return { mark, 'ok', quota_used(l.key, ARGV[5]) or -1 }
