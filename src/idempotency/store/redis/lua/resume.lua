local epoch, lease, nonce = ARGV[4], tonumber(ARGV[5]), ARGV[6]
local claim = read()
if not claim then
  return {''}
end
if claim.state == 'in_flight' and claim.owner == OWNER and claim.nonce == nonce then
  return {claim.epoch} -- the reply to the first run was lost
end
if claim.state ~= 'unknown' or claim.epoch ~= epoch then
  return {''}
end
local next_epoch = text(math.max(now, tonumber(epoch) + 1))
redis.call('PERSIST', CLAIM)
redis.call('HSET', CLAIM, 'state', 'in_flight', 'epoch', next_epoch, 'owner', OWNER,
  'lease_until', text(now + lease), 'nonce', nonce)
redis.call('DEL', TOLD)
return {next_epoch}
