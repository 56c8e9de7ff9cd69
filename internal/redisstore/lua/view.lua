-- ARGV: key, period.
if not known_epoch() then return { mark, 'epoch' } end
expire()
local a = account(ARGV[3])
return {
  mark, 'ok', a.slots, a.leases, slide(window('requests', ARGV[3])).total, slide(window('tokens', ARGV[3])).total,
  a.reserved, quota_used(ARGV[3], ARGV[4]) or -1, a.held, int(debt_tokens(debt_of(ARGV[3]))),
}
