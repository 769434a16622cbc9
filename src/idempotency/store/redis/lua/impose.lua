local state, epoch, exchange, fingerprint, first_sent =
  ARGV[4], tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8]
local captured, at, answer = ARGV[9], ARGV[10], ARGV[11]
local ttl, keep = tonumber(ARGV[12]), tonumber(ARGV[13])
local tombstone = resolved()
if redis.call('EXISTS', CLAIM) == 1 or (tombstone > 0 and tombstone >= epoch) then
  return {'0'}
end
if epoch == 0 then
  epoch = now
end
redis.call('HSET', CLAIM, 'state', state, 'epoch', text(epoch), 'owner', OWNER,
  'exchange', exchange, 'first_sent', first_sent, 'captured', captured, 'at', at)
if fingerprint ~= '' then
  redis.call('HSET', CLAIM, 'fingerprint', fingerprint)
end
if state == 'completed' then
  redis.call('PEXPIRE', CLAIM, keep)
  if answer ~= '' and ttl > 0 then
    redis.call('SET', ANSWER, answer, 'PX', ttl)
  end
end
publish()
return {'1'}
