-- A sliding window in so many parts that no window ever holds more than the count:
-- a part is dropped when its youngest moment is out of the window.
local count, per, parts = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local width = math.ceil(per / parts)
local current = math.floor(now / width)
local flat = redis.call('HGETALL', KEYS[1])
local kept, total = {}, 0
for i = 1, #flat, 2 do
  local part, held = tonumber(flat[i]), tonumber(flat[i + 1])
  -- One from the future is from before the clock was set back.
  if part <= current and (part + 1) * width > now - per then
    kept[#kept + 1] = {part, held}
    total = total + held
  else
    redis.call('HDEL', KEYS[1], flat[i])
  end
end
if total < count then
  redis.call('HINCRBY', KEYS[1], string.format('%.0f', current), 1)
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil((per + width) / 1000) + 1))
  return {'0'}
end
table.sort(kept, function(a, b) return a[1] < b[1] end)
local wait = per
for _, part in ipairs(kept) do
  total = total - part[2]
  if total < count then
    wait = (part[1] + 1) * width + per - now
    break
  end
end
return {string.format('%.0f', math.max(wait, 1))}
