#!lua name=warmfleet_relay
-- Sending a stream's events on. KEYS[1] is the prefix of a queue or a fleet; all keys share its hash tag. Layout: matchmaker/events/relay.py.

-- ARGV: sink, token, lease in ms, for how long events are kept in ms, for how long that is known without being said again in ms.
-- Keeps the events, makes the sink's group (from the stream's beginning), and takes or renews the lease on it. Returns 1 when it is held. One step, so that a
-- stream that expired is never read without its group.
local function relay_hold(keys, args)
  local p, lease = keys[1], keys[1] .. 'events:lease:' .. args[1]
  redis.call('SET', p .. 'events:keep', args[4], 'PX', args[5])
  redis.call('PEXPIRE', p .. 'events', args[4] + args[5]) -- a stream that nobody keeps any more goes
  if args[1] == '' then return 0 end
  redis.pcall('XGROUP', 'CREATE', p .. 'events', args[1], '0', 'MKSTREAM')
  local holder = redis.call('GET', lease)
  if holder and holder ~= args[2] then return 0 end
  redis.call('SET', lease, args[2], 'PX', args[3])
  return 1
end

-- ARGV: sink, token, reason, then of each event: its entry, the event. What a sink does not take is kept apart and acknowledged, in one step: it is in one of the
-- two places. Returns how many; -1 when the lease is another's.
local function relay_bury(keys, args)
  local p, count = keys[1], 0
  if redis.call('GET', p .. 'events:lease:' .. args[1]) ~= args[2] then return -1 end
  for i = 4, #args, 2 do
    if redis.call('XACK', p .. 'events', args[1], args[i]) == 1 then
      redis.call('XADD', p .. 'events:dead:' .. args[1], 'MAXLEN', '~', 100000, '*', 'event', args[i + 1], 'reason', args[3])
      count = count + 1
    end
  end
  redis.call('EXPIRE', p .. 'events:dead:' .. args[1], 30 * 86400)
  return count
end

-- ARGV: sink, token. Gives the lease up.
local function relay_yield(keys, args)
  local lease = keys[1] .. 'events:lease:' .. args[1]
  return redis.call('GET', lease) == args[2] and redis.call('DEL', lease) or 0
end

redis.register_function('relay_hold', relay_hold)
redis.register_function('relay_bury', relay_bury)
redis.register_function('relay_yield', relay_yield)
