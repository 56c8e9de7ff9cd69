-- ARGV: lease, key, slot, tokens, six caps.
if not known_epoch() then return { mark, 'epoch' } end
local id, key, slot, tokens, caps = ARGV[3], ARGV[4], ARGV[5] == '1', ARGV[6] == '1', caps_at(7)
local more = expire()
if load(id) then return { mark, 'lease' } end

local requests, used = slide(window('requests', key)), slide(window('tokens', key))

-- "requests, slots (global, key), tokens, quota; the first that refuses is
-- named", and nothing is taken before all have passed (F4).
local function check()
  if caps.requests == 0 then return 'requests', WINDOW end
  if caps.requests > 0 and requests.total >= caps.requests then
    return 'requests', until_at_most(requests, caps.requests - 1)
  end
  if slot then
    local slots = function() return tonumber(redis.call('HGET', base .. 'global', 'slots')) or 0 end
    -- Dead leases refuse nobody, however many there are.
    while more and caps.global > 0 and slots() >= caps.global do more = expire() end
    while more and caps.concurrent > 0 and account(key).slots >= caps.concurrent do more = expire() end
    if caps.global >= 0 and slots() >= caps.global then return 'concurrent', SECOND end
    if caps.concurrent >= 0 and account(key).slots >= caps.concurrent then return 'concurrent_key', SECOND end
  end
  if not tokens then return 'ok', 0 end
  return check_tokens(used, key, account(key).reserved, caps, 1) -- not spent: room for one at least
end

local verdict, wait = check()
if verdict == 'ok' then
  add(requests, now, 1)
  store({ id = id, key = key, slot = slot, reserved = 0, total = 0, counted = second_of(now) }, now + PROVISIONAL)
end
return decision(verdict, wait, requests, used, key, caps)
