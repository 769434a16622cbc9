-- A lease that ran out unseen is taken up again: nobody acted on its end.
local epoch, lease = ARGV[4], tonumber(ARGV[5])
local claim = load()
if not is_ours(claim, epoch) or claim.state ~= 'in_flight' then
  return {'0'}
end
-- The first write is one that a full server still takes; those after it go with it.
redis.call('PERSIST', CLAIM)
redis.call('HSET', CLAIM, 'lease_until', text(now + lease))
return {'1'}
