#!lua name=warmfleet_ratings
-- Ratings of one queue's players, and the sessions that are to be rated. Applying a session checks that it is still to be rated, and that no rating has
-- changed since it was read, in the same step as it writes: each session counts once, and none overwrites another's. KEYS[1] is the prefix `wf:r:{queue}:`.
-- Layout: matchmaker/ratings/store.py.

-- ARGV: session, due in ms from now. A session is to be rated; again: nothing changes. Returns 1 when it is new.
local function rating_expect(keys, args)
  local time = redis.call('TIME')
  return redis.call('ZADD', keys[1] .. 'due', 'NX', time[1] * 1000 + math.floor(time[2] / 1000) + args[2], args[1])
end

-- ARGV: most, ms after which they are due again. Returns sessions that are due now: looked at next when that time has passed, unless they are applied.
local function rating_due(keys, args)
  local time, due = redis.call('TIME'), keys[1] .. 'due'
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local found = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, args[1])
  for _, session in ipairs(found) do redis.call('ZADD', due, 'XX', now + args[2], session) end
  return found
end

-- ARGV: session; then of each player: id, matches when it was read, new rating (JSON [mean, spread, matches]). Returns 'OK', 'DONE' when the session is not
-- to be rated (any more), 'STALE' when a player has been rated since: read again.
local function rating_apply(keys, args)
  local due, players = keys[1] .. 'due', keys[1] .. 'players'
  if not redis.call('ZSCORE', due, args[1]) then return 'DONE' end
  for i = 2, #args, 3 do
    local now = redis.call('HGET', players, args[i])
    local matches = now and cjson.decode(now)[3] or 0
    if matches ~= tonumber(args[i + 1]) then return 'STALE' end
  end
  for i = 2, #args, 3 do redis.call('HSET', players, args[i], args[i + 2]) end
  redis.call('ZREM', due, args[1])
  return 'OK'
end

-- ARGV: session, results (JSON), for how long they are kept in s. Somebody says how a session ended; it is looked at next. Returns 1, also for the same
-- results again; 0 when others were said before.
local function rating_report(keys, args)
  local key, time = keys[1] .. 'results:' .. args[1], redis.call('TIME')
  if not redis.call('SET', key, args[2], 'NX', 'EX', args[3]) then return redis.call('GET', key) == args[2] and 1 or 0 end
  redis.call('ZADD', keys[1] .. 'due', 'XX', time[1] * 1000 + math.floor(time[2] / 1000), args[1])
  return 1
end

redis.register_function('rating_report', rating_report)
redis.register_function('rating_expect', rating_expect)
redis.register_function('rating_due', rating_due)
redis.register_function('rating_apply', rating_apply)
