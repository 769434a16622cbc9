local exchange, fingerprint, first_sent = ARGV[4], ARGV[5], ARGV[6]
local lease, nonce = tonumber(ARGV[7]), tonumber(ARGV[8])
local claim = read()
local epoch
if not claim then
  epoch = text(math.max(now, resolved() + 1))
  redis.call('HSET', CLAIM, 'state', 'in_flight', 'epoch', epoch, 'owner', OWNER,
    'exchange', exchange, 'first_sent', first_sent)
  if fingerprint ~= '' then
    redis.call('HSET', CLAIM, 'fingerprint', fingerprint)
  end
  redis.call('DEL', ANSWER, TOLD)
elseif claim.state == 'in_flight' and claim.owner == OWNER and claim.exchange == exchange then
  -- The reply to the first run was lost.
  epoch = claim.epoch
  nonce = math.max(nonce, tonumber(claim.nonce))
else
  return describe(claim)
end
redis.call('HSET', CLAIM, 'lease_until', text(now + lease), 'nonce', text(nonce))
return {'claimed', epoch, text(resolved())}
