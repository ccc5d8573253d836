#!lua name=warmfleet_queue
-- The tickets of one queue. Check and change are one function, so that no ticket is in two matches and none is lost between two steps. All keys
-- share the queue's hash tag; KEYS[1] is the prefix `wf:q:{queue}:` (never itself a key). Layout: matchmaker/store.py.
-- Here: what all parts of the library share, and tickets as they are created and read. Then, in this order: queue_refusals, queue_direction,
-- queue_matches, queue_backfills.
--
-- A ticket is in exactly one place: the pool, a proposed match, a placing match, or over. Whatever enters or leaves the pool other than by
-- a match's commit is written to the log, which the director reads from where it stopped.

local TICKET_TTL_S = 86400
local FINAL_TTL_S = 3600
local OFFENCES_TTL_S = 86400
local LOG_LENGTH = 200000
local MOST_OFFENDERS = 10000
local MOST_PLAYING = 1000 -- tickets of one session
local PLAYING_TTL_S = 14400 -- after anybody has come, or somebody was wanted
local JUMP_MS = 10000 -- as in gameserver/sessions/clock.py
local LATE_MS = 60000 -- what players mostly have to accept a match

-- The queue's clock: the store's, less what that has jumped by while tickets waited (`follow_clock`).
local function now_ms(p)
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000) - (redis.call('GET', p .. 'jumped') or 0)
end

local function fenced(p, token) return redis.call('GET', p .. 'lease') ~= token end

local function log(p, ...) redis.call('XADD', p .. 'log', 'MAXLEN', '~', LOG_LENGTH, '*', ...) end

-- A director that has read everything sleeps when it has worked on it: only the first who comes after that look tells it.
local function wake(p)
  if redis.call('DEL', p .. 'idle') == 1 then redis.call('PUBLISH', p .. 'wake', '') end
end

-- Change a ticket and count the event; returns its part of the message to the watchers.
local function change(p, id, ...)
  local key = p .. 'ticket:' .. id
  redis.call('HSET', key, ...)
  return '"' .. id .. '":' .. redis.call('HINCRBY', key, 'event', 1)
end

-- Note for the watchers of some tickets (parts from `change`) what they are now; `rest` is more JSON, begun with a comma.
local function tell(news, state, parts, rest)
  if #parts == 0 then return end
  news[#news + 1] = '{"state":"' .. state .. '"' .. (rest or '') .. ',"tickets":{' .. table.concat(parts, ',') .. '}}'
end

-- Say all that was noted, in one message.
local function publish(p, news)
  if #news == 0 then return end
  redis.call('PUBLISH', p .. 'changed', '[' .. table.concat(news, ',') .. ']')
  local kept = events_kept(p)
  if not kept then return end
  local now = now_ms(p)
  for _, one in ipairs(news) do
    local ticket, event = string.match(one, '"tickets":{"([^"]+)":(%d+)')
    emit(p, kept, now, 'ticket.' .. string.match(one, '^{"state":"([%w_]+)"'), ticket .. ':' .. event, string.match(one, '"match":"([^"]+)"') or ticket, one)
  end
end

local function because(reason) return ',"reason":' .. cjson.encode(reason) end

local function names_of(p, id)
  local names = {}
  for name in (redis.call('HGET', p .. 'ticket:' .. id, 'names') or ''):gmatch('[^\n]+') do names[#names + 1] = name end
  return names
end

-- A ticket is over: its players may queue again. Appends to `parts`.
local function finish(p, id, parts, ...)
  local names = names_of(p, id)
  if #names == 0 then return end -- it waited longer than its record lives
  for _, player in ipairs(names) do
    if redis.call('GET', p .. 'player:' .. player) == id then redis.call('DEL', p .. 'player:' .. player) end
  end
  parts[#parts + 1] = change(p, id, ...)
  redis.call('EXPIRE', p .. 'ticket:' .. id, FINAL_TTL_S)
end

local function leave_pool(p, id)
  if redis.call('ZREM', p .. 'pool', id) == 1 then log(p, '-', id) end
end

-- A ticket waits again, as old as it is. Appends to `parts`.
local function wait_again(p, id, parts, reason)
  local key = p .. 'ticket:' .. id
  local was = redis.call('HMGET', key, 'created_ms', 'players')
  if not was[1] then return end
  redis.call('ZADD', p .. 'pool', was[1], id)
  redis.call('HDEL', key, 'match', 'accepted', 'asked', 'deadline_ms')
  log(p, '+', id, was[1], was[2])
  parts[#parts + 1] = change(p, id, 'state', 'searching', 'reason', reason)
end

local function again(p, news, tickets, reason)
  local parts = {}
  for _, id in ipairs(tickets) do wait_again(p, id, parts, reason) end
  tell(news, 'searching', parts, because(reason))
  wake(p)
end

-- ARGV: most tickets; then of each ticket: id, players (JSON), player ids (a line each), idempotency key or ''.
-- Returns for each {'OK', id, created in ms}, {'HAVE', id} for a repeated key or call (its reply was lost), {'BUSY', player, id}, {'BARRED', player, ms, why}, {'CLOSED', how}, {'FULL'}.
local function ticket_create(keys, args)
  local p, most, now, made, replies = keys[1], tonumber(args[1]), now_ms(keys[1]), false, {}
  local closed = redis.call('GET', p .. 'closed')
  local waiting, kept = redis.call('ZCARD', p .. 'pool'), events_kept(p)

  local function create(id, players, names, key)
    local before = key ~= '' and redis.call('GET', p .. 'idempotency:' .. key)
    if before then return { 'HAVE', before } end
    if redis.call('EXISTS', p .. 'ticket:' .. id) == 1 then return { 'HAVE', id } end
    for player in names:gmatch('[^\n]+') do
      local held = redis.call('MGET', p .. 'player:' .. player, p .. 'penalty:' .. player)
      if held[1] and redis.call('EXISTS', p .. 'ticket:' .. held[1]) == 1 then return { 'BUSY', player, held[1] } end
      if held[2] then return { 'BARRED', player, redis.call('PTTL', p .. 'penalty:' .. player), held[2] } end
    end
    if closed then return { 'CLOSED', closed } end
    if waiting >= most then return { 'FULL' } end
    for player in names:gmatch('[^\n]+') do redis.call('SET', p .. 'player:' .. player, id, 'EX', TICKET_TTL_S) end
    if key ~= '' then redis.call('SET', p .. 'idempotency:' .. key, id, 'EX', FINAL_TTL_S) end
    redis.call('ZADD', p .. 'pool', now, id)
    redis.call('HSET', p .. 'ticket:' .. id, 'state', 'queued', 'players', players, 'names', names, 'created_ms', now, 'event', 1)
    redis.call('EXPIRE', p .. 'ticket:' .. id, TICKET_TTL_S)
    log(p, '+', id, now, players)
    if kept then
      local who = {}
      for player in names:gmatch('[^\n]+') do who[#who + 1] = player end
      emit(p, kept, now, 'ticket.created', id .. ':1', id, '{"state":"queued","players":' .. cjson.encode(who) .. ',"tickets":{"' .. id .. '":1}}')
    end
    waiting, made = waiting + 1, true
    return { 'OK', id, now }
  end

  for i = 2, #args, 4 do replies[#replies + 1] = create(args[i], args[i + 1], args[i + 2], args[i + 3]) end
  if made then wake(p) end
  return replies
end

-- ARGV: ticket id…. Returns now in ms, then each one's record, empty where there is none.
local function ticket_fetch(keys, args)
  local replies = { now_ms(keys[1]) }
  for _, id in ipairs(args) do
    replies[#replies + 1] = redis.call('HMGET', keys[1] .. 'ticket:' .. id, 'players', 'created_ms', 'state', 'event', 'match', 'assignment', 'reason',
      'accepted', 'asked', 'deadline_ms', 'assigned_ms')
  end
  return replies
end

-- ARGV: lease token, ticket id…. Tickets that were looked at and are still queued are searching now.
local function ticket_search(keys, args)
  local p, parts, news = keys[1], {}, {}
  if fenced(p, args[1]) then return 'FENCED' end
  for i = 2, #args do
    if redis.call('HGET', p .. 'ticket:' .. args[i], 'state') == 'queued' then
      parts[#parts + 1] = change(p, args[i], 'state', 'searching')
    end
  end
  tell(news, 'searching', parts)
  publish(p, news)
  return 'OK'
end

redis.register_function('ticket_create', ticket_create)
redis.register_function('ticket_fetch', ticket_fetch)
redis.register_function('ticket_search', ticket_search)
