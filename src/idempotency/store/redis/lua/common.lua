-- What every script on a claim begins with. Time is the server's own, in microseconds.
local CLAIM, ANSWER, TOLD, RESOLVED = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local CHANNEL, ID, OWNER = ARGV[1], ARGV[2], ARGV[3]
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

-- Numbers of sixteen digits, not 1.7e+15.
local function text(number)
  return string.format('%.0f', number)
end

-- Who waits is told at once; where that is not permitted they find out by asking.
local function publish()
  redis.pcall('PUBLISH', CHANNEL, ID)
end

local function load()
  local flat = redis.call('HGETALL', CLAIM)
  if #flat == 0 then
    return nil
  end
  local claim = {}
  for i = 1, #flat, 2 do
    claim[flat[i]] = flat[i + 1]
  end
  return claim
end

-- As `load`, and a lease found run out makes an unknown of it, here and for good.
local function read()
  local claim = load()
  if claim and claim.state == 'in_flight' and tonumber(claim.lease_until) <= now then
    claim.state = 'unknown'
    redis.call('PERSIST', CLAIM)
    redis.call('HSET', CLAIM, 'state', 'unknown')
    redis.call('HDEL', CLAIM, 'lease_until')
    publish()
  end
  return claim
end

local function is_ours(claim, epoch)
  return claim and claim.owner == OWNER and claim.epoch == epoch
end

local function resolved()
  return tonumber(redis.call('GET', RESOLVED) or '0')
end

local function describe(claim)
  local answer = ''
  if claim.state == 'completed' then
    answer = redis.call('GET', ANSWER) or ''
  end
  return {
    claim.state, claim.epoch, claim.owner, claim.exchange, claim.fingerprint or '',
    claim.first_sent or '0', claim.captured or '', claim.at or '', answer,
  }
end
