-- A match on its way to a server: committed, taken over, assigned, or given back. Part of the library that queue.lua begins.

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

-- Keep who plays in a session, as their tickets described them: newcomers must fit them. Not without end: whoever comes and goes is taken out by
-- `playing_prune` where somebody is wanted, and beyond MOST_PLAYING tickets nobody is added.
local function keep_players(p, session, ids, first, last)
  local key = p .. 'playing:' .. session
  if redis.call('HLEN', key) + last - first >= MOST_PLAYING then return end
  for t = first, last do
    local players = redis.call('HGET', p .. 'ticket:' .. ids[t], 'players')
    if players then redis.call('HSET', key, ids[t], players) end
  end
  redis.call('EXPIRE', key, PLAYING_TTL_S)
end

-- The session that a match was assigned, as its first ticket knows; '' when it was not.
local function session_of(p, match, ticket)
  local was = redis.call('HMGET', p .. 'ticket:' .. ticket, 'match', 'assignment')
  return was[1] == match and was[2] and cjson.decode(was[2]).session or ''
end

-- ARGV: of each match: id, assignment (JSON), session under which its players are kept for backfills ('': they are not), number of tickets, ticket ids. Returns for each the session that it has: the assignment's, another's that came
-- before, or '' when its tickets were returned. Whoever asks first wins, its owner or not: a session that is there is as good as another.
local function match_assign(keys, args)
  local p, replies, news, i, now = keys[1], {}, {}, 1, now_ms(keys[1])
  while i <= #args do
    local last, parts = i + 3 + args[i + 3], {}
    if redis.call('HDEL', p .. 'matches', args[i]) == 1 then
      redis.call('HDEL', p .. 'owners', args[i])
      if args[i + 2] ~= '' then keep_players(p, args[i + 2], args, i + 4, last) end
      for t = i + 4, last do finish(p, args[t], parts, 'state', 'assigned', 'assignment', args[i + 1], 'assigned_ms', now) end
      tell(news, 'assigned', parts, ',"match":"' .. args[i] .. '","assignment":' .. args[i + 1])
    end
    replies[#replies + 1] = session_of(p, args[i], args[i + 4])
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

redis.register_function('match_commit', match_commit)
redis.register_function('match_adopt', match_adopt)
redis.register_function('match_assign', match_assign)
redis.register_function('match_return', match_return)
