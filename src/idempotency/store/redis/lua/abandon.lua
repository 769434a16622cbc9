-- Takes back a reservation whose reply never came: nothing was sent under it.
local exchange, nonce = ARGV[4], ARGV[5]
local claim = load()
local stray = claim and claim.owner == OWNER and claim.exchange == exchange
  and claim.nonce == nonce and claim.state ~= 'completed'
if not stray then
  return {'0'}
end
redis.call('DEL', CLAIM)
publish()
return {'1'}
