-- ARGV: lease, total, the least step, what a running answer holds of a large rest (its
-- share, and at most so much), six caps. The reply: tokens that the lease may use
-- in all, and the quota counter.
if not known_epoch() then return { mark, 'epoch' } end
local total, step, caps = tonumber(ARGV[4]), tonumber(ARGV[5]), caps_at(8)
expire()
local l = load(ARGV[3])
if not l then return { mark, 'lease' } end
if l.granted < 0 or caps.quota < 0 then return { mark, 'ok', l.granted, -1 } end
local used = quota_used(l.key, caps.period)
if not used then return { mark, 'unseeded' } end
if l.granted < l.total then l.granted = l.total end -- what is over is used already
local left = math.max(0, caps.quota - used - account(l.key).held)
step = math.max(step, math.min(tonumber(ARGV[7]), math.floor(left / tonumber(ARGV[6]))))
local more = math.max(0, total + step - l.granted)
hold(l, math.min(more, left))
if more > left then -- its prompt is known by now: what was spare for it is free
  l.granted = l.granted + math.min(more - left, math.max(0, l.held - (l.granted - l.total)))
  redis.call('HSET', base .. 'lease:' .. l.id, 'granted', int(l.granted))
end
return { mark, 'ok', l.granted, used }
