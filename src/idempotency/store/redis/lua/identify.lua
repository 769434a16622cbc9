local epoch, fingerprint = ARGV[4], ARGV[5]
if not is_ours(load(), epoch) then
  return {'0'}
end
redis.call('HSET', CLAIM, 'fingerprint', fingerprint)
publish()
return {'1'}
