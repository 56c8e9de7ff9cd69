-- ARGV: lease, tokens, sequences, what to hold of the quota (prompt, output, most,
-- least, extended, spare), the rest of a quota that one request may hold alone, what
-- a running answer holds of a large rest (its share, and at most so much), six caps.
-- A lease reserves once.
if not known_epoch() then return { mark, 'epoch' } end
local tokens, sequences, small, caps = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[12]), caps_at(15)
local want = {
  prompt = tonumber(ARGV[6]), output = tonumber(ARGV[7]), most = tonumber(ARGV[8]), least = tonumber(ARGV[9]),
  extended = ARGV[10] == '1', spare = tonumber(ARGV[11]), share = tonumber(ARGV[13]), ahead = tonumber(ARGV[14]),
}
local more = expire()
local l = load(ARGV[3])
if not l or l.has_reserved then return { mark, 'lease' } end
local requests, used = slide(window('requests', l.key)), slide(window('tokens', l.key))
local owed = debt_under(l.key, caps.tokens)
local own, wide = more_slots(l, caps, sequences)

-- granted_of is what is granted when so much is left, prompt included, and what is
-- held beside that.
local function granted_of(left)
  left = math.max(0, left - want.prompt)
  local output = math.max(want.output, want.least)
  if want.extended then
    output = math.max(output, math.min(want.ahead, math.floor(left / want.share)))
  else
    output = math.max(2 * output, math.min(small, left), math.floor(left / 16))
  end
  output = math.min(want.most, output, left)
  return want.prompt + output, math.min(want.spare, left - output)
end

local verdict, need, free = check_slots(l.key, caps, own, wide, function()
  local left = more
  more = more and expire()
  return left
end)
local wait = SECOND
if not verdict then
  verdict, wait = check_tokens(used, l.key, owed, caps, tokens, math.max(1, want.prompt + want.least), want.spare)
end
if verdict == 'ok' then
  redis.call('HSET', base .. 'lease:' .. l.id, 'has_reserved', 1)
  take_slots(l, own, wide)
  reserve(l, tokens) -- in full, also above the limit
  if caps.quota >= 0 then
    l.granted = 0
    local granted, spare = granted_of(caps.quota - quota_used(l.key, caps.period) - account(l.key).held)
    hold(l, granted + spare)
    l.granted = granted
    redis.call('HSET', base .. 'lease:' .. l.id, 'granted', int(granted))
  end
end
return decision(verdict, wait, requests, used, l.key, caps, owed, {
  need = need, free = free, granted = l.granted, slots = l.slots, wide = l.wide,
})
