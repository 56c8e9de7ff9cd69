-- Every script begins with clock.lua and this file.
--
-- KEYS[1] is the beginning of every key, hash tag included: all of it lies in
-- one slot, so names may be made up here. ARGV[1] marks the call, and every
-- reply begins with it. ARGV[2] is the epoch: what Redis holds was written
-- since then. A Redis that lost it (restarted empty, a failover to a blank
-- replica) must not decide: the caller treats that as an outage.
local base, mark, now = KEYS[1], ARGV[1], clock()
local SECOND, WINDOW = 1000000, 60000000
local PROVISIONAL, CLAIMED = 5 * SECOND, 15 * SECOND -- lease life

local function second_of(at) return math.floor(at / SECOND) end

-- int writes a number as Redis reads integers; .. alone would round it.
local function int(n) return string.format('%.0f', n) end

local function known_epoch() return redis.call('GET', base .. 'epoch') == ARGV[2] end
