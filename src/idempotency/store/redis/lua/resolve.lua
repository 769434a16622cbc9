local wanted, verdict, keep, nonce = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local exchange, fingerprint, captured = ARGV[8], ARGV[9], ARGV[10]
local claim = read()
if claim and claim.owner == OWNER and claim.nonce == nonce then
  return {'done', claim.epoch} -- the reply to the first run was lost
end
if claim and claim.state ~= 'unknown' then
  return {claim.state}
end
local latest = claim and tonumber(claim.epoch) or resolved()
if claim and wanted ~= '' and claim.epoch ~= wanted then
  return {'changed'}
end
if not claim and wanted ~= '' and tonumber(wanted) < latest then
  -- Resolved meanwhile. To hear the same again changes nothing.
  return verdict == 'absent' and {'done', text(latest)} or {'changed'}
end
local epoch = text(math.max(now, latest + 1, (tonumber(wanted) or 0) + 1))
if verdict == 'absent' then
  redis.call('DEL', CLAIM)
  redis.call('SET', RESOLVED, epoch, 'PX', keep)
else
  redis.call('PERSIST', CLAIM)
  redis.call('HSET', CLAIM, 'state', 'completed', 'epoch', epoch, 'owner', OWNER,
    'nonce', nonce, 'captured', captured)
  if not claim then
    redis.call('HSET', CLAIM, 'exchange', exchange)
    if fingerprint ~= '' then
      redis.call('HSET', CLAIM, 'fingerprint', fingerprint)
    end
  end
  redis.call('HDEL', CLAIM, 'lease_until', 'at')
  redis.call('PEXPIRE', CLAIM, keep)
end
redis.call('DEL', ANSWER, TOLD)
publish()
return {'done', epoch}
