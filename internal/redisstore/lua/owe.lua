-- ARGV: key, limit, tokens that are unpaid at least.
if not known_epoch() then return { mark, 'epoch' } end
debt_raise(ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]))
return { mark, 'ok' }
