return {string.format('%.0f', redis.call('PTTL', KEYS[1]))}
