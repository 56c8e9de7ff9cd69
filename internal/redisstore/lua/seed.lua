-- ARGV: key, period, tokens used. A counter that is known is left alone.
if not known_epoch() then return { mark, 'epoch' } end
quota_seed(ARGV[3], ARGV[4], ARGV[5])
return { mark, 'ok', quota_used(ARGV[3], ARGV[4]) }
