-- What acquire.lua and reserve.lua have in common.

-- caps_at reads four limits and the quota period; below 0 is unlimited.
local function caps_at(i)
  return {
    global = tonumber(ARGV[i]), concurrent = tonumber(ARGV[i + 1]), requests = tonumber(ARGV[i + 2]),
    tokens = tonumber(ARGV[i + 3]), quota = tonumber(ARGV[i + 4]), period = ARGV[i + 5],
  }
end

-- check_slots: a verdict, nil when so many are free. forget removes dead leases
-- while there may be more: they refuse nobody, however many there are.
local function check_slots(key, caps, own, wide, forget)
  local slots = function() return tonumber(redis.call('HGET', base .. 'global', 'slots')) or 0 end
  local full = function() return wide > 0 and caps.global >= 0 and slots() + wide > caps.global end
  local own_full = function() return own > 0 and caps.concurrent >= 0 and account(key).slots + own > caps.concurrent end
  while full() and forget() do end
  if full() then return 'concurrent', wide, math.max(0, caps.global - slots()) end
  while own_full() and forget() do end
  if own_full() then return 'concurrent_key', own, math.max(0, caps.concurrent - account(key).slots) end
end

-- more_slots: what a lease must take for so many sequences, at most all of the
-- key's limit and a quarter of the gateway's.
local function more_slots(l, caps, sequences)
  if l.slots == 0 then return 0, 0 end
  local own, wide = sequences, sequences
  if caps.concurrent >= 0 then own = math.min(own, math.max(1, caps.concurrent)) end
  if caps.global >= 0 then wide = math.min(wide, math.max(1, math.floor(caps.global / 4))) end
  return math.max(0, own - l.slots), math.max(0, wide - l.wide)
end

-- check_tokens: token window with its debt, then need of the quota, and beside
-- other requests spare as well. A verdict and the µs to wait.
local function check_tokens(w, key, d, caps, tokens, need, spare)
  local a = account(key)
  local reserved = a.reserved
  if caps.tokens == 0 then return 'tokens', WINDOW end
  if caps.tokens > 0 then
    -- "Admit when used + reserved + min(estimate, limit) <= limit"
    local room = caps.tokens - math.min(tokens, caps.tokens)
    local owed = debt_wait(d)
    if owed > 0 then return 'tokens', math.max(owed, until_at_most(w, room)) end
    -- "1 while live reservations stand in the way"
    if w.total <= room and w.total + reserved > room then return 'tokens', SECOND end
    -- "when enough used tokens will have slid out"
    if w.total > room then return 'tokens', until_at_most(w, room) end
  end
  if caps.quota == 0 then return 'quota', 0 end
  if caps.quota > 0 then
    local used = quota_used(key, caps.period)
    if not used then return 'unseeded', 0 end
    if caps.quota - used < need then return 'quota', 0 end
    if a.held > 0 and caps.quota - used - a.held < need + spare then return 'quota', SECOND end -- what is held may come back any time
  end
  return 'ok', 0
end

-- decision is the reply, with the numbers of the same instant.
local function decision(verdict, wait, requests, tokens, key, caps, d, more)
  local a, owed = account(key), debt_wait(d)
  return {
    mark, verdict, int(wait), requests.total, until_empty(requests), tokens.total, int(math.max(until_empty(tokens), owed)),
    a.reserved, caps.quota > 0 and quota_used(key, caps.period) or -1,
    a.held, int(debt_tokens(d)), more.need or 0, more.free or 0, int(more.granted or 0), more.slots or 0, more.wide or 0,
    int(d.unpaid),
  }
end
