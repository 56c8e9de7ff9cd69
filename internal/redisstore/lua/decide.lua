-- What acquire.lua and reserve.lua have in common.

-- caps_at reads four limits and the quota period; below 0 is unlimited.
local function caps_at(i)
  return {
    global = tonumber(ARGV[i]), concurrent = tonumber(ARGV[i + 1]), requests = tonumber(ARGV[i + 2]),
    tokens = tonumber(ARGV[i + 3]), quota = tonumber(ARGV[i + 4]), period = ARGV[i + 5],
  }
end

-- check_tokens: token window, then quota. A verdict and the µs to wait.
local function check_tokens(w, key, reserved, caps, tokens)
  if caps.tokens == 0 then return 'tokens', WINDOW end
  if caps.tokens > 0 then
    -- "Admit when used + reserved + min(estimate, limit) <= limit"
    local room = caps.tokens - math.min(tokens, caps.tokens)
    -- "1 while live reservations stand in the way"
    if w.total <= room and w.total + reserved > room then return 'tokens', SECOND end
    -- "when enough used tokens will have slid out"
    if w.total > room then return 'tokens', until_at_most(w, room) end
  end
  if caps.quota == 0 then return 'quota', 0 end
  if caps.quota > 0 then
    -- "Quota: admit while used + reserved < quota"
    local used = quota_used(key, caps.period)
    if not used then return 'unseeded', 0 end
    if used >= caps.quota then return 'quota', 0 end
    if used + reserved >= caps.quota then return 'quota', SECOND end
  end
  return 'ok', 0
end

-- decision is the reply, with the numbers of the same instant.
local function decision(verdict, wait, requests, tokens, key, caps)
  return {
    mark, verdict, wait, requests.total, until_empty(requests), tokens.total, until_empty(tokens),
    account(key).reserved, caps.quota > 0 and quota_used(key, caps.period) or -1,
  }
end
