-- What came of one life of a claim, for those who wait for it.
local epoch = ARGV[4]
local claim = read()
if claim and claim.epoch == epoch and claim.state == 'in_flight' then
  return {'in_flight', claim.fingerprint or ''}
end
local told = redis.call('HMGET', TOLD, 'epoch', 'record')
if told[1] == epoch and told[2] ~= '' then
  return {'answer', told[2]}
end
if not claim or claim.epoch ~= epoch then
  return {'gone'}
end
return describe(claim)
