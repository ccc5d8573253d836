-- A proposed match, accepted or refused: who refuses is out, the others wait again, as old as they are; and what refusing or leaving costs a player.
-- Part of the library that queue.lua begins.

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

-- ARGV: session, player. A player has left a running match for good; heard of again: nothing changes.
local function player_left(keys, args)
  local p = keys[1]
  if redis.call('SET', p .. 'left:' .. args[1] .. ':' .. args[2], 1, 'NX', 'EX', OFFENCES_TTL_S) then offend(p, args[2], 'left') end
  return 1
end

-- ARGV: the entry of `offenders` that is dealt with, player, for how long it may not queue in ms (0: it may), why.
local function player_bar(keys, args)
  redis.call('LREM', keys[1] .. 'offenders', 1, args[1])
  if tonumber(args[3]) > 0 then redis.call('SET', keys[1] .. 'penalty:' .. args[2], args[4], 'PX', args[3]) end
  return 1
end

redis.register_function('ticket_cancel', ticket_cancel)
redis.register_function('match_accept', match_accept)
redis.register_function('player_left', player_left)
redis.register_function('player_bar', player_bar)
