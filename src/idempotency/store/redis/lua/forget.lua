local keep = tonumber(ARGV[4])
local claim = read()
if not claim or claim.state ~= 'completed' then
  return {'0'}
end
redis.call('DEL', CLAIM, ANSWER, TOLD)
if keep > 0 then
  local epoch = math.max(now, tonumber(claim.epoch) + 1, resolved() + 1)
  redis.call('SET', RESOLVED, text(epoch), 'PX', keep)
end
publish()
return {'1'}
