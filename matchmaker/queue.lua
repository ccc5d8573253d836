#!lua name=warmfleet_queue
-- The tickets of one queue. Check and change are one function, so that no ticket is in two matches and none is lost between two steps. All keys
-- share the queue's hash tag; KEYS[1] is the prefix `wf:q:{queue}:` (never itself a key). Layout: matchmaker/store.py.

local TICKET_TTL_S = 86400
local FINAL_TTL_S = 3600

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function fenced(p, token) return redis.call('GET', p .. 'lease') ~= token end

-- Change a ticket, count the event, and tell its watchers.
local function change(p, id, ttl, ...)
  local key = p .. 'ticket:' .. id
  redis.call('HSET', key, ...)
  redis.call('HINCRBY', key, 'event', 1)
  redis.call('EXPIRE', key, ttl)
  redis.call('PUBLISH', p .. 'changed', id)
end

-- A ticket is over: its players may queue again.
local function finish(p, id, ...)
  redis.call('ZREM', p .. 'pool', id)
  local names = redis.call('HGET', p .. 'ticket:' .. id, 'names')
  if not names then return end -- it waited longer than its record lives
  for _, player in ipairs(cjson.decode(names)) do
    if redis.call('GET', p .. 'player:' .. player) == id then redis.call('DEL', p .. 'player:' .. player) end
  end
  change(p, id, FINAL_TTL_S, ...)
end

-- ARGV: ticket id, players (JSON), player ids (JSON list), idempotency key or '', most tickets.
-- Returns {'OK', id}, {'HAVE', id} for a repeated key or call (its reply was lost), {'BUSY', player, id}, {'FULL'}.
local function ticket_create(keys, args)
  local p, id, names = keys[1], args[1], cjson.decode(args[3])
  local again = args[4] ~= '' and p .. 'idempotency:' .. args[4]
  if again then
    local before = redis.call('GET', again)
    if before then return {'HAVE', before} end
  end
  if redis.call('EXISTS', p .. 'ticket:' .. id) == 1 then return {'HAVE', id} end
  for _, player in ipairs(names) do
    local live = redis.call('GET', p .. 'player:' .. player)
    if live and redis.call('EXISTS', p .. 'ticket:' .. live) == 1 then return {'BUSY', player, live} end
  end
  if redis.call('ZCARD', p .. 'pool') >= tonumber(args[5]) then return {'FULL'} end
  for _, player in ipairs(names) do redis.call('SET', p .. 'player:' .. player, id, 'EX', TICKET_TTL_S) end
  if again then redis.call('SET', again, id, 'EX', FINAL_TTL_S) end
  local now = now_ms()
  redis.call('ZADD', p .. 'pool', now, id)
  change(p, id, TICKET_TTL_S, 'state', 'queued', 'players', args[2], 'names', args[3], 'created_ms', now)
  redis.call('PUBLISH', p .. 'wake', id)
  return {'OK', id}
end

-- ARGV: ticket id. Returns the state that the ticket is in now ('cancelled' if it could be), or false.
local function ticket_cancel(keys, args)
  local p, id = keys[1], args[1]
  local state = redis.call('HGET', p .. 'ticket:' .. id, 'state')
  if not state then return false end
  if redis.call('ZSCORE', p .. 'pool', id) then
    finish(p, id, 'state', 'cancelled')
    return 'cancelled'
  end
  return state
end

-- ARGV: lease token, ticket id…. Tickets that were looked at and are still queued are searching now.
local function ticket_search(keys, args)
  local p = keys[1]
  if fenced(p, args[1]) then return 'FENCED' end
  for i = 2, #args do
    if redis.call('HGET', p .. 'ticket:' .. args[i], 'state') == 'queued' then
      change(p, args[i], TICKET_TTL_S, 'state', 'searching')
    end
  end
  return 'OK'
end

-- ARGV: lease token, age in ms. Tickets that have waited longer are timed out. Returns how many.
local function ticket_expire(keys, args)
  local p = keys[1]
  if fenced(p, args[1]) then return 0 end
  local late = redis.call('ZRANGEBYSCORE', p .. 'pool', '-inf', now_ms() - tonumber(args[2]), 'LIMIT', 0, 1000)
  for _, id in ipairs(late) do finish(p, id, 'state', 'timed_out', 'reason', 'no match within the time limit') end
  return #late
end

-- ARGV: lease token, match id, match (JSON), ticket id…. All tickets leave the pool for the match, or none does.
-- Returns 'OK', 'FENCED', or the id of a ticket that is no longer waiting.
local function match_commit(keys, args)
  local p = keys[1]
  if fenced(p, args[1]) then return 'FENCED' end
  if redis.call('HEXISTS', p .. 'matches', args[2]) == 1 then return 'OK' end -- a call repeated because its reply was lost
  for i = 4, #args do
    if not redis.call('ZSCORE', p .. 'pool', args[i]) then return args[i] end
  end
  redis.call('HSET', p .. 'matches', args[2], args[3])
  for i = 4, #args do
    redis.call('ZREM', p .. 'pool', args[i])
    change(p, args[i], TICKET_TTL_S, 'state', 'placing', 'match', args[2])
  end
  return 'OK'
end

-- ARGV: match id, assignment (JSON), ticket id…. Returns 1; 0 when the match is not placing (assigned or returned before).
local function match_assign(keys, args)
  local p = keys[1]
  if redis.call('HDEL', p .. 'matches', args[1]) == 0 then return 0 end
  for i = 3, #args do finish(p, args[i], 'state', 'assigned', 'assignment', args[2]) end
  return 1
end

-- ARGV: match id, reason, ticket id…. The tickets wait again, as old as they are. Returns 1; 0 when the match is not placing.
local function match_return(keys, args)
  local p = keys[1]
  if redis.call('HDEL', p .. 'matches', args[1]) == 0 then return 0 end
  for i = 3, #args do
    local created = redis.call('HGET', p .. 'ticket:' .. args[i], 'created_ms')
    if created then
      redis.call('ZADD', p .. 'pool', created, args[i])
      redis.call('HDEL', p .. 'ticket:' .. args[i], 'match')
      change(p, args[i], TICKET_TTL_S, 'state', 'searching', 'reason', args[2])
    end
  end
  redis.call('PUBLISH', p .. 'wake', '')
  return 1
end

-- ARGV: token, time to live in ms. Take or renew the director's lease. Returns 1 when it is held.
local function lease_hold(keys, args)
  local key = keys[1] .. 'lease'
  local holder = redis.call('GET', key)
  if holder and holder ~= args[1] then return 0 end
  redis.call('SET', key, args[1], 'PX', args[2])
  return 1
end

-- ARGV: token. Give the lease up, if it is held.
local function lease_release(keys, args)
  local key = keys[1] .. 'lease'
  if redis.call('GET', key) ~= args[1] then return 0 end
  redis.call('PUBLISH', keys[1] .. 'wake', '')
  return redis.call('DEL', key)
end

redis.register_function('ticket_create', ticket_create)
redis.register_function('ticket_cancel', ticket_cancel)
redis.register_function('ticket_search', ticket_search)
redis.register_function('ticket_expire', ticket_expire)
redis.register_function('match_commit', match_commit)
redis.register_function('match_assign', match_assign)
redis.register_function('match_return', match_return)
redis.register_function('lease_hold', lease_hold)
redis.register_function('lease_release', lease_release)
