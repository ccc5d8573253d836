#!lua name=warmfleet_queue
-- The tickets of one queue. Check and change are one function, so that no ticket is in two matches and none is lost between two steps. All keys
-- share the queue's hash tag; KEYS[1] is the prefix `wf:q:{queue}:` (never itself a key). Layout: matchmaker/store.py.
--
-- A ticket is in exactly one place: the pool, a proposed match, a placing match, or over. Whatever enters or leaves the pool other than by
-- a match's commit is written to the log, which the director reads from where it stopped.

local TICKET_TTL_S = 86400
local FINAL_TTL_S = 3600
local OFFENCES_TTL_S = 86400
local LOG_LENGTH = 200000
local MOST_OFFENDERS = 10000
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

local function offend(p, player, kind)
  local count = redis.call('INCR', p .. 'offences:' .. player)
  redis.call('EXPIRE', p .. 'offences:' .. player, OFFENCES_TTL_S)
  redis.call('RPUSH', p .. 'offenders', player .. '\n' .. kind .. '\n' .. count)
  redis.call('LTRIM', p .. 'offenders', -MOST_OFFENDERS, -1)
end

-- Break a proposed match up: tickets with a guilty player (player → kind of offence) are cancelled, the others wait again.
local function dissolve(p, news, match, guilty)
  local raw = redis.call('HGET', p .. 'proposed', match)
  redis.call('HDEL', p .. 'proposed', match)
  redis.call('ZREM', p .. 'deadlines', match)
  redis.call('DEL', p .. 'accepting:' .. match)
  local innocent, cancelled = {}, {}
  for _, id in ipairs(cjson.decode(raw).tickets) do
    local kind
    for _, player in ipairs(names_of(p, id)) do
      if guilty[player] then
        kind = guilty[player]
        offend(p, player, kind)
      end
    end
    if kind then
      cancelled[kind] = cancelled[kind] or {}
      finish(p, id, cancelled[kind], 'state', 'cancelled', 'reason', kind)
    else
      innocent[#innocent + 1] = id
    end
  end
  for kind, parts in pairs(cancelled) do tell(news, 'cancelled', parts, because(kind)) end
  again(p, news, innocent, 'a match was not accepted by everybody')
end

-- ARGV: ticket id. Returns the state that the ticket is in now ('cancelled' if it could be), or false. Of a proposed match it is a refusal.
local function ticket_cancel(keys, args)
  local p, id, news = keys[1], args[1], {}
  local was = redis.call('HMGET', p .. 'ticket:' .. id, 'state', 'match')
  if not was[1] then return false end
  if redis.call('ZSCORE', p .. 'pool', id) then
    leave_pool(p, id)
    local parts = {}
    finish(p, id, parts, 'state', 'cancelled')
    tell(news, 'cancelled', parts)
    publish(p, news)
    return 'cancelled'
  end
  if was[1] == 'proposed' then
    local guilty = {}
    for _, player in ipairs(names_of(p, id)) do guilty[player] = 'declined' end
    dissolve(p, news, was[2], guilty)
    publish(p, news)
    return 'cancelled'
  end
  return was[1]
end

-- ARGV: ticket id, player, '1' to accept or '0' to decline. Returns the state that the ticket is in now, or false.
local function match_accept(keys, args)
  local p, id, player, news = keys[1], args[1], args[2], {}
  local was = redis.call('HMGET', p .. 'ticket:' .. id, 'state', 'match')
  if not was[1] then return false end
  if was[1] ~= 'proposed' then return was[1] end
  local match, accepting = was[2], p .. 'accepting:' .. was[2]
  if args[3] ~= '1' then
    dissolve(p, news, match, { [player] = 'declined' })
    publish(p, news)
    return 'cancelled'
  end
  if redis.call('HSET', accepting, player, 1) == 0 then return 'proposed' end -- said before
  local raw, accepted, parts = redis.call('HGET', p .. 'proposed', match), redis.call('HLEN', accepting) - 1, {}
  local tickets = cjson.decode(raw).tickets
  if accepted < tonumber(redis.call('HGET', accepting, '')) then
    for _, ticket in ipairs(tickets) do parts[#parts + 1] = change(p, ticket, 'accepted', accepted) end
    tell(news, 'proposed', parts, ',"match":"' .. match .. '","accepted":' .. accepted)
    publish(p, news)
    return 'proposed'
  end
  redis.call('HDEL', p .. 'proposed', match)
  redis.call('ZREM', p .. 'deadlines', match)
  redis.call('DEL', accepting)
  redis.call('HSET', p .. 'matches', match, raw)
  for _, ticket in ipairs(tickets) do
    redis.call('HDEL', p .. 'ticket:' .. ticket, 'accepted', 'asked', 'deadline_ms')
    parts[#parts + 1] = change(p, ticket, 'state', 'placing')
  end
  tell(news, 'placing', parts, ',"match":"' .. match .. '"')
  publish(p, news)
  log(p, 'm', match)
  wake(p)
  return 'placing'
end

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

-- ARGV: lease token, how long players may take to accept in ms (0: nobody is asked); then of each match: id, match (JSON), number of tickets, ticket ids.
-- All tickets of a match leave the pool for it, or none does. Returns 'FENCED', or for each 'OK' or the id of a ticket that is no longer waiting.
local function match_commit(keys, args)
  local p, accept_ms, replies, news, i = keys[1], tonumber(args[2]), {}, {}, 3
  if fenced(p, args[1]) then return 'FENCED' end
  local deadline = now_ms(p) + accept_ms

  local function commit(match, raw, first, last)
    if redis.call('HEXISTS', p .. 'matches', match) == 1 or redis.call('HEXISTS', p .. 'proposed', match) == 1 then
      return 'OK' -- a call repeated because its reply was lost
    end
    for t = first, last do
      if not redis.call('ZSCORE', p .. 'pool', args[t]) then return args[t] end
    end
    local parts, asked = {}, 0
    redis.call('HSET', p .. (accept_ms > 0 and 'proposed' or 'matches'), match, raw)
    if accept_ms == 0 then redis.call('HSET', p .. 'owners', match, args[1]) end
    redis.call('ZREM', p .. 'pool', unpack(args, first, last))
    if accept_ms > 0 then
      for t = first, last do asked = asked + #names_of(p, args[t]) end
    end
    for t = first, last do
      if accept_ms > 0 then
        parts[#parts + 1] = change(p, args[t], 'state', 'proposed', 'match', match, 'accepted', 0, 'asked', asked, 'deadline_ms', deadline)
      else
        parts[#parts + 1] = change(p, args[t], 'state', 'placing', 'match', match)
      end
    end
    if accept_ms > 0 then
      redis.call('HSET', p .. 'accepting:' .. match, '', asked)
      redis.call('EXPIRE', p .. 'accepting:' .. match, TICKET_TTL_S)
      redis.call('ZADD', p .. 'deadlines', deadline, match)
      tell(news, 'proposed', parts, ',"match":"' .. match .. '","accepted":0,"deadline":' .. deadline)
    else
      tell(news, 'placing', parts, ',"match":"' .. match .. '"')
    end
    return 'OK'
  end

  while i <= #args do
    local last = i + 2 + args[i + 2]
    replies[#replies + 1] = commit(args[i], args[i + 1], i + 3, last)
    i = last + 1
  end
  publish(p, news)
  return replies
end

-- ARGV: lease token, match ids. Whoever directs takes matches that are placing over: from now on nobody else gives them back. Returns 'FENCED', or for
-- each the match (JSON), false when it is not placing.
local function match_adopt(keys, args)
  local p, found = keys[1], {}
  if fenced(p, args[1]) then return 'FENCED' end
  for i = 2, #args do
    local raw = redis.call('HGET', p .. 'matches', args[i])
    if raw then redis.call('HSET', p .. 'owners', args[i], args[1]) end
    found[#found + 1] = raw
  end
  return found
end

-- The session that a match was assigned, as its first ticket knows; '' when it was not.
local function session_of(p, match, ticket)
  local was = redis.call('HMGET', p .. 'ticket:' .. ticket, 'match', 'assignment')
  return was[1] == match and was[2] and cjson.decode(was[2]).session or ''
end

-- ARGV: of each match: id, assignment (JSON), number of tickets, ticket ids. Returns for each the session that it has: the assignment's, another's that came
-- before, or '' when its tickets were returned. Whoever asks first wins, its owner or not: a session that is there is as good as another.
local function match_assign(keys, args)
  local p, replies, news, i, now = keys[1], {}, {}, 1, now_ms(keys[1])
  while i <= #args do
    local last, parts = i + 2 + args[i + 2], {}
    if redis.call('HDEL', p .. 'matches', args[i]) == 1 then
      redis.call('HDEL', p .. 'owners', args[i])
      for t = i + 3, last do finish(p, args[t], parts, 'state', 'assigned', 'assignment', args[i + 1], 'assigned_ms', now) end
      tell(news, 'assigned', parts, ',"match":"' .. args[i] .. '","assignment":' .. args[i + 1])
    end
    replies[#replies + 1] = session_of(p, args[i], args[i + 3])
    i = last + 1
  end
  publish(p, news)
  return replies
end

-- ARGV: match id, reason, lease token of the director that gives up ('': an operator). The tickets wait again, as old as they are, and nobody may be sent to
-- a session of this match any more. Returns 1; 0 when the match is neither placing nor proposed, or a director gives up that another took it over from.
local function match_return(keys, args)
  local p, match, news = keys[1], args[1], {}
  local raw = redis.call('HGET', p .. 'matches', match) or redis.call('HGET', p .. 'proposed', match)
  if not raw or (args[3] ~= '' and redis.call('HGET', p .. 'owners', match) ~= args[3]) then return 0 end
  redis.call('HDEL', p .. 'matches', match)
  redis.call('HDEL', p .. 'owners', match)
  redis.call('HDEL', p .. 'proposed', match)
  redis.call('ZREM', p .. 'deadlines', match)
  redis.call('DEL', p .. 'accepting:' .. match)
  again(p, news, cjson.decode(raw).tickets, args[2])
  publish(p, news)
  return 1
end

-- Backfills: session → JSON {version, teams: {name: open places}, …}; `busy` names the match that is being seated, so that no two are at once.

local function backfill_of(p, session)
  local raw = redis.call('HGET', p .. 'backfills', session)
  return raw and cjson.decode(raw)
end

-- ARGV: session, version that the caller knows (0: none), backfill (JSON, with the next version). Returns {1, version}, or {0, version} when the caller's is
-- not the newest or players are being seated right now.
local function backfill_put(keys, args)
  local p, now = keys[1], backfill_of(keys[1], args[1])
  local version = now and now.version or 0
  if version == tonumber(args[2]) + 1 and redis.call('HGET', p .. 'backfills', args[1]) == args[3] then return {1, version} end -- said before
  if version ~= tonumber(args[2]) or (now and now.busy and redis.call('HEXISTS', p .. 'matches', now.busy) == 1) then return {0, version} end
  redis.call('HSET', p .. 'backfills', args[1], args[3])
  wake(p)
  return {1, version + 1}
end

-- ARGV: session. It wants nobody any more. Returns 1 when it did.
local function backfill_drop(keys, args) return redis.call('HDEL', keys[1] .. 'backfills', args[1]) end

-- ARGV: lease token, session, version, what it wants after this match (JSON, '' for nothing), match id, match (JSON), ticket ids. The tickets leave the
-- pool for the session, if it still wants what it wanted. Returns 'OK', 'FENCED', 'STALE', or the id of a ticket that is no longer waiting.
local function backfill_commit(keys, args)
  local p, session, match = keys[1], args[2], args[5]
  if fenced(p, args[1]) then return 'FENCED' end
  if redis.call('HEXISTS', p .. 'matches', match) == 1 then return 'OK' end
  local wants = backfill_of(p, session)
  if not wants or wants.version ~= tonumber(args[3]) then return 'STALE' end
  if wants.busy and redis.call('HEXISTS', p .. 'matches', wants.busy) == 1 then return 'STALE' end
  for t = 7, #args do
    if not redis.call('ZSCORE', p .. 'pool', args[t]) then return args[t] end
  end
  local parts, news = {}, {}
  redis.call('HSET', p .. 'matches', match, args[6])
  redis.call('HSET', p .. 'owners', match, args[1])
  redis.call('ZREM', p .. 'pool', unpack(args, 7))
  for t = 7, #args do parts[#parts + 1] = change(p, args[t], 'state', 'placing', 'match', match) end
  tell(news, 'placing', parts, ',"match":"' .. match .. '"')
  publish(p, news)
  if args[4] == '' then redis.call('HDEL', p .. 'backfills', session) else redis.call('HSET', p .. 'backfills', session, args[4]) end
  return 'OK'
end

redis.register_function('backfill_put', backfill_put)
redis.register_function('backfill_drop', backfill_drop)
redis.register_function('backfill_commit', backfill_commit)

-- ARGV: the entry of `offenders` that is dealt with, player, for how long it may not queue in ms (0: it may), why.
local function player_bar(keys, args)
  redis.call('LREM', keys[1] .. 'offenders', 1, args[1])
  if tonumber(args[3]) > 0 then redis.call('SET', keys[1] .. 'penalty:' .. args[2], args[4], 'PX', args[3]) end
  return 1
end

-- ARGV: session, player. A player has left a running match for good; heard of again: nothing changes.
local function player_left(keys, args)
  local p = keys[1]
  if redis.call('SET', p .. 'left:' .. args[1] .. ':' .. args[2], 1, 'NX', 'EX', OFFENCES_TTL_S) then offend(p, args[2], 'left') end
  return 1
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

redis.register_function('replica_beat', replica_beat)
redis.register_function('ticket_create', ticket_create)
redis.register_function('ticket_fetch', ticket_fetch)
redis.register_function('ticket_search', ticket_search)
redis.register_function('ticket_cancel', ticket_cancel)
redis.register_function('queue_cycle', queue_cycle)
redis.register_function('queue_close', queue_close)
redis.register_function('match_commit', match_commit)
redis.register_function('match_accept', match_accept)
redis.register_function('match_adopt', match_adopt)
redis.register_function('match_assign', match_assign)
redis.register_function('match_return', match_return)
redis.register_function('player_bar', player_bar)
redis.register_function('player_left', player_left)
redis.register_function('lease_hold', lease_hold)
redis.register_function('lease_release', lease_release)
