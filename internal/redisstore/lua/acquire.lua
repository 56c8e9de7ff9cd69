-- ARGV: lease, key, slot, tokens, six caps.
if not known_epoch() then return { mark, 'epoch' } end
local id, key, slot, tokens, caps = ARGV[3], ARGV[4], ARGV[5] == '1', ARGV[6] == '1', caps_at(7)
local more = expire()
if load(id) then return { mark, 'lease' } end

local requests, used = slide(window('requests', key)), slide(window('tokens', key))
local owed, refused = debt_under(key, caps.tokens), {}

-- "requests, slots (global, key), tokens, quota; the first that refuses is
-- named", and nothing is taken before all have passed.
local function check()
  if caps.requests == 0 then return 'requests', WINDOW end
  if caps.requests > 0 and requests.total >= caps.requests then
    return 'requests', until_at_most(requests, caps.requests - 1)
  end
  if slot then
    local verdict, need, free = check_slots(key, caps, 1, 1, function()
      local left = more
      more = more and expire()
      return left
    end)
    if verdict then
      refused = { need = need, free = free }
      return verdict, SECOND
    end
  end
  if not tokens then return 'ok', 0 end
  return check_tokens(used, key, owed, caps, 1, 1, 0) -- not spent: room for one at least
end

local verdict, wait = check()
if verdict == 'ok' then
  add(requests, now, 1)
  local n = slot and 1 or 0
  store({
    id = id, key = key, slots = n, wide = n, granted = -1, held = 0, reserved = 0, total = 0, counted = second_of(now),
  }, now + PROVISIONAL)
end
return decision(verdict, wait, requests, used, key, caps, owed, refused)
