-- Directing a queue: the lease, one look at what has changed, what is late, and how the queue is closed. Part of the library that queue.lua begins.

-- Time out what has waited too long: tickets, and proposed matches that somebody has not answered.
local function expire(p, now, age_ms)
  local news, gone = {}, 0
  if age_ms > 0 then
    local late, parts, why = redis.call('ZRANGEBYSCORE', p .. 'pool', '-inf', now - age_ms, 'LIMIT', 0, 1000), {}, 'no match within the time limit'
    for _, id in ipairs(late) do
      leave_pool(p, id)
      finish(p, id, parts, 'state', 'timed_out', 'reason', why)
    end
    tell(news, 'timed_out', parts, because(why))
    gone = #late
  end
  for _, match in ipairs(redis.call('ZRANGEBYSCORE', p .. 'deadlines', '-inf', now, 'LIMIT', 0, 100)) do
    local guilty = {}
    for _, id in ipairs(cjson.decode(redis.call('HGET', p .. 'proposed', match)).tickets) do
      for _, player in ipairs(names_of(p, id)) do
        if redis.call('HEXISTS', p .. 'accepting:' .. match, player) == 0 then guilty[player] = 'not accepted in time' end
      end
    end
    dissolve(p, news, match, guilty)
  end
  publish(p, news)
  return gone
end

-- The lease may be kept for a replica's director, whose token begins with the replica's name and a dot.
local function hold(p, token, ms)
  local key = p .. 'lease'
  local holder = redis.call('GET', key)
  if holder and holder ~= token and holder ~= 'for ' .. (string.match(token, '^(.*)%.') or '') then
    -- Longer than a lease lasts: the store's clock was set back, and the holder may be gone.
    if redis.call('PTTL', key) > 2 * tonumber(ms) then redis.call('PEXPIRE', key, ms) end
    return false
  end
  redis.call('SET', p .. 'lease', token, 'PX', ms)
  return true
end

-- What a director's look finds where it expected its clock to be: should the store's have jumped, the queue's does not, so that nothing is older for it.
-- What was stamped by the wrong clock since the last look moves back. A queue that nothing waits in goes by the store's clock again. Returns by how
-- many ms it has jumped; 0: it has not.
local function follow_clock(p, expected)
  local now, jumped = now_ms(p), redis.call('GET', p .. 'jumped')
  local by = now - expected
  if math.abs(by) <= JUMP_MS then
    if jumped and redis.call('EXISTS', p .. 'pool', p .. 'deadlines', p .. 'matches') == 0 then redis.call('DEL', p .. 'jumped') end
    return 0
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', p .. 'pool', now - JUMP_MS, now)) do
    redis.call('HSET', p .. 'ticket:' .. id, 'created_ms', redis.call('ZINCRBY', p .. 'pool', -by, id))
  end
  -- Only later: a player who had no time to accept must not be blamed.
  for _, match in ipairs(by < 0 and redis.call('ZRANGEBYSCORE', p .. 'deadlines', now - JUMP_MS, now + LATE_MS) or {}) do
    redis.call('ZINCRBY', p .. 'deadlines', -by, match)
  end
  redis.call('SET', p .. 'jumped', (jumped or 0) + by)
  return by
end

-- ARGV: lease token, lease in ms, cursor in the log ('' for none), age in ms at which tickets time out (0: never), most entries, what the queue's clock
-- should show in ms ('' unknown).
-- One look at the queue by its director: takes or renews the lease, times out what is late, and returns what has changed since the cursor.
-- Returns {'HELD', now_ms} while another directs; {'LOST', now_ms, cursor, by how many ms the clock has jumped} when the log does not reach back to the cursor, or times
-- have changed: read the pool, go on from the new one;
-- or {'OK', now_ms, cursor, how it is closed or '', offenders, entries, tickets timed out, when the oldest was created in ms or 0}, each entry {'+', id, created_ms, players}, {'-', id} or {'m', match}.
local function queue_cycle(keys, args)
  local p = keys[1]
  if not hold(p, args[1], args[2]) then return { 'HELD', now_ms(p) } end
  local expected = tonumber(args[6])
  local jumped = expected and follow_clock(p, expected) or 0
  local now = now_ms(p)
  local gone = expire(p, now, tonumber(args[4]))
  local entries = args[3] ~= '' and jumped == 0 and redis.call('XRANGE', p .. 'log', args[3], '+', 'COUNT', args[5] + 1) or {}
  if #entries == 0 or entries[1][1] ~= args[3] then
    return { 'LOST', now, redis.call('XADD', p .. 'log', 'MAXLEN', '~', LOG_LENGTH, '*', '!', ''), jumped }
  end
  local changes = {}
  for i = 2, #entries do
    local fields = entries[i][2]
    if fields[1] ~= '!' then changes[#changes + 1] = fields end
  end
  -- Everything is read: whatever comes from now on must wake the director, also while it still works on what it was given.
  if #entries <= tonumber(args[5]) then redis.call('SET', p .. 'idle', 1) end
  local oldest = redis.call('ZRANGE', p .. 'pool', 0, 0, 'WITHSCORES')[2] or 0
  local offenders = redis.call('LRANGE', p .. 'offenders', 0, 99)
  return { 'OK', now, entries[#entries][1], redis.call('GET', p .. 'closed') or '', offenders, changes, gone, tonumber(oldest) }
end

-- ARGV: 'paused' (no tickets in, no matches made), 'draining' (no tickets in) or '' (open).
local function queue_close(keys, args)
  local p = keys[1]
  if args[1] == '' then redis.call('DEL', p .. 'closed') else redis.call('SET', p .. 'closed', args[1]) end
  wake(p)
  return 'OK'
end

-- ARGV: token, time to live in ms. Take or renew the director's lease. Returns 1 when it is held.
local function lease_hold(keys, args) return hold(keys[1], args[1], args[2]) and 1 or 0 end

-- ARGV: token, replica for whose director it is kept ('': for nobody), for how long in ms. Give the lease up, if it is held.
local function lease_release(keys, args)
  local key = keys[1] .. 'lease'
  if redis.call('GET', key) ~= args[1] then return 0 end
  if args[2] == '' then redis.call('DEL', key) else redis.call('SET', key, 'for ' .. args[2], 'PX', args[3]) end
  redis.call('PUBLISH', keys[1] .. 'wake', '')
  return 1
end

-- KEYS[1]: the set of directors (of all queues). ARGV: replica, for how long it counts as alive in ms (0: it goes). Returns those that are.
local function replica_beat(keys, args)
  local time, alive = redis.call('TIME'), tonumber(args[2])
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', now)
  -- Later than can be: the store's clock was set back. Who lives says so again soon.
  if alive > 0 then redis.call('ZREMRANGEBYSCORE', keys[1], '(' .. now + 2 * alive, '+inf') end
  if alive > 0 then redis.call('ZADD', keys[1], now + args[2], args[1]) else redis.call('ZREM', keys[1], args[1]) end
  return redis.call('ZRANGE', keys[1], 0, -1)
end

redis.register_function('queue_cycle', queue_cycle)
redis.register_function('queue_close', queue_close)
redis.register_function('lease_hold', lease_hold)
redis.register_function('lease_release', lease_release)
redis.register_function('replica_beat', replica_beat)
