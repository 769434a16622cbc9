local epoch, ending, captured, at, answer = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local ttl, keep = tonumber(ARGV[9]), tonumber(ARGV[10])
local told, told_ttl = ARGV[11], ARGV[12]
local claim = load()
if not claim then
  -- Gone by an earlier run whose reply was lost, or somebody else's doing.
  local before = redis.call('HMGET', TOLD, 'owner', 'epoch', 'ending')
  local same = before[1] == OWNER and before[2] == epoch and before[3] == ending
  return {same and '1' or '0'}
end
if not is_ours(claim, epoch) then
  return {'0'}
end
if claim.state == 'completed' then
  return {ending == 'completed' and '1' or '0'}
end
local stays = ending == 'unknown' or (ending == 'completed' and keep > 0)
-- The first write is one that a full server still takes; those after it go with it.
if stays then
  redis.call('PERSIST', CLAIM)
  redis.call('HSET', CLAIM, 'state', ending)
  redis.call('HDEL', CLAIM, 'lease_until', 'nonce')
else
  redis.call('DEL', CLAIM)
end
redis.call('DEL', TOLD)
if stays and ending == 'completed' then
  redis.call('HSET', CLAIM, 'captured', captured, 'at', at)
  redis.call('PEXPIRE', CLAIM, keep)
  if answer ~= '' and ttl > 0 then
    redis.call('SET', ANSWER, answer, 'PX', ttl)
  end
end
if told ~= '' or not stays then
  redis.call('HSET', TOLD, 'owner', OWNER, 'epoch', epoch, 'ending', ending, 'record', told)
  redis.call('PEXPIRE', TOLD, told_ttl)
end
publish()
return {'1'}
