#!lua name=warmfleet_sessions
-- What a game server may do to its sessions. Every function is fenced: a call whose server or epoch is not the record's changes nothing and
-- returns 'GONE'. Check and change must be one step, since the session may be moved to another server between them.
-- Keys of one call share the fleet's hash tag. Layout: gameserver/sessions/valkey.py.

local MOST_LEAVERS = 1000
local LEAVERS_TTL_S = 86400
local WANTS_TTL_S = 86400

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Tell of a session, whose record's key it is; `rest` is more JSON.
local function tell(record, kind, epoch, rest)
  local p, id = string.match(record, '^(wf:{.-}:)session:(.*)$')
  local kept = events_kept(p)
  if not kept then return end
  local what = '"session":"' .. id .. '","epoch":' .. epoch
  emit(p, kept, now_ms(), 'session.' .. kind, id .. ':' .. epoch .. ':' .. kind, id, '{' .. what .. rest .. '}')
end

-- KEYS: session, checkpoint. ARGV: server, epoch, time to live in s. Returns 'GONE', or {record as a flat list, checkpoint or false}. It always
-- writes: who waits for replicas to have that knows that they have what was written before, the session's move.
local function session_open(keys, args)
  local held = redis.call('HMGET', keys[1], 'server', 'epoch', 'state')
  if held[1] ~= args[1] or held[2] ~= args[2] or held[3] == 'ended' then return 'GONE' end
  if held[3] ~= 'live' then
    redis.call('HSET', keys[1], 'state', 'live', 'changed_ms', now_ms())
    tell(keys[1], 'live', args[2], ',"server":"' .. args[1] .. '"')
  end
  redis.call('EXPIRE', keys[1], args[3] or 86400)
  return {redis.call('HGETALL', keys[1]), redis.call('GET', keys[2])}
end

-- KEYS: session, checkpoint. ARGV: epoch, tick, time to live in s, state (none: the stored one is that of this tick too). Returns 'GONE' or 'OK'; an
-- older tick changes nothing.
local function session_checkpoint(keys, args)
  local held = redis.call('HMGET', keys[1], 'epoch', 'state', 'checkpoint_tick')
  if held[1] ~= args[1] or held[2] == 'ended' then return 'GONE' end
  if tonumber(args[2]) > tonumber(held[3] or 0) then
    if args[4] then redis.call('SET', keys[2], args[4], 'EX', args[3]) else redis.call('EXPIRE', keys[2], args[3]) end
    redis.call('HSET', keys[1], 'checkpoint_tick', args[2])
    redis.call('EXPIRE', keys[1], args[3])
  end
  return 'OK'
end

-- KEYS: session, checkpoint, the fleet's prefix. ARGV: session id, server, epoch, tick, state, time to live in s. Keeps the last checkpoint and gives
-- the session to the room that is reserved for it: epoch + 1, the room that it leaves is free. Returns the record as a flat list, 'NONE' when no
-- room is reserved, 'GONE'. Asked again after a lost reply: the record again. One step, since between the checkpoint and the move a tick could
-- be played that no one keeps.
local function session_hand_over(keys, args)
  local record, p = keys[1], keys[3]
  local held = redis.call('HMGET', record, 'server', 'epoch', 'state', 'room', 'next_server', 'next_room', 'next_host', 'next_ports', 'came_from')
  if held[3] == 'ended' then return 'GONE' end
  if held[9] == args[2] and held[2] == tostring(args[3] + 1) then return redis.call('HGETALL', record) end
  if held[1] ~= args[2] or held[2] ~= args[3] then return 'GONE' end
  if not held[5] then return 'NONE' end
  local old = p .. 'server:' .. args[2]
  if redis.call('HGET', old, 'room:' .. held[4]) == args[1] then
    redis.call('HDEL', old, 'room:' .. held[4])
    redis.call('RPUSH', p .. 'rooms:' .. args[2], held[4])
    -- It was to go when the room elsewhere was reserved, and need not be any more.
    if redis.call('HGET', old, 'draining') ~= '1' then redis.call('ZINCRBY', p .. 'shelf', 1, args[2]) end
  end
  redis.call('SET', keys[2], args[5], 'EX', args[6])
  redis.call('HSET', record, 'server', held[5], 'room', held[6], 'host', held[7], 'ports', held[8], 'epoch', args[3] + 1,
    'state', 'live', 'checkpoint_tick', args[4], 'came_from', args[2], 'changed_ms', now_ms())
  redis.call('HDEL', record, 'next_server', 'next_room', 'next_host', 'next_ports')
  redis.call('EXPIRE', record, args[6])
  redis.call('PUBLISH', p .. 'inbox:' .. held[5], args[1])
  redis.call('PUBLISH', p .. 'wake', args[1])
  tell(record, 'moved', args[3] + 1, ',"from":"' .. args[2] .. '","server":"' .. held[5] .. '","live":true')
  return redis.call('HGETALL', record)
end

-- KEYS: session, checkpoint, ended set. ARGV: epoch, session id, results (JSON), time to live in s, wake channel. Returns 'GONE' or 'OK'.
-- Ended by this epoch before: 'OK' again, so that a lost reply can be asked anew.
local function session_end(keys, args)
  local held = redis.call('HMGET', keys[1], 'epoch', 'state')
  if held[1] ~= args[1] then return 'GONE' end
  if held[2] ~= 'ended' then
    redis.call('HSET', keys[1], 'state', 'ended', 'results', args[3], 'changed_ms', now_ms())
    redis.call('EXPIRE', keys[1], args[4])
    redis.call('DEL', keys[2])
    redis.call('SADD', keys[3], args[2])
    redis.call('PUBLISH', args[5], args[2])
    tell(keys[1], 'ended', args[1], ',"results":' .. args[3])
  end
  return 'OK'
end

-- KEYS: beat, server, then the session of each open room. ARGV: server, mode, time to live in ms, the fleet's prefix, then each open room's epoch.
-- Returns {open rooms that are no longer this server's (from 0), sessions it should have as [id, epoch, next server or '', kicked players or '']…}. One step, so that what
-- it hears is of one moment.
local function session_beat(keys, args)
  local p = args[4]
  local before = redis.call('SET', keys[1], args[2], 'PX', args[3], 'GET')
  if args[2] ~= 'serve' and before ~= args[2] then redis.call('PUBLISH', p .. 'wake', '') end
  local fenced, placed = {}, {}
  for i = 3, #keys do
    local held = redis.call('HMGET', keys[i], 'server', 'epoch', 'state')
    if held[1] ~= args[1] or held[2] ~= args[i + 2] or held[3] == 'ended' then fenced[#fenced + 1] = i - 3 end
  end
  local fields = redis.call('HGETALL', keys[2])
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 5) == 'room:' then
      local held = redis.call('HMGET', p .. 'session:' .. fields[i + 1], 'server', 'epoch', 'state', 'next_server', 'kicked')
      if held[1] == args[1] and (held[3] == 'live' or held[3] == 'draining') then
        placed[#placed + 1] = {fields[i + 1], held[2], held[4] or '', held[5] or ''}
      end
    end
  end
  return {fenced, placed}
end

-- KEYS: session. ARGV: session id, player, reason, the fleet's prefix. The player is out of the session for good, on whichever server it is played: what
-- is noted here is told to the server that has the session, with its heartbeats or when it opens it. Returns 'GONE' or 'OK'; asked again, the first
-- reason stays. One step, so that no server opens the session between the look and the note.
local function session_kick(keys, args)
  local held = redis.call('HMGET', keys[1], 'server', 'state', 'kicked')
  if not held[2] or held[2] == 'ended' then return 'GONE' end
  local kicked = held[3] and cjson.decode(held[3]) or {}
  if kicked[args[2]] == nil then
    kicked[args[2]] = args[3]
    redis.call('HSET', keys[1], 'kicked', cjson.encode(kicked))
    if held[1] then redis.call('PUBLISH', args[4] .. 'inbox:' .. held[1], args[1]) end
  end
  return 'OK'
end

-- The matchmaker is to look (again) at what the game of a session wants: there is one note a session, that of its newest change.
local function note_want(p, record, id)
  local options = redis.call('HGET', record, 'options')
  local queue = options and cjson.decode(options).queue or ''
  if queue == '' then return end
  local key, change = p .. 'wants:' .. queue, redis.call('HINCRBY', record, 'want_change', 1)
  redis.call('SREM', key, id .. ' ' .. change - 1)
  redis.call('SADD', key, id .. ' ' .. change)
  redis.call('EXPIRE', key, WANTS_TTL_S)
end

local function wants_anybody(want) return want and want ~= '{}' end

-- Free the seats of players of a session, for others too if it takes any, in the record and in the set of those that take more (allocator/seats.lua).
-- Returns how many were seated.
local function vacate(p, record, id, players)
  local f = redis.call('HMGET', record, 'seats', 'free_seats', 'options', 'want')
  local leaving, kept, seats = {}, {}, cjson.decode(f[1])
  for _, player in ipairs(players) do
    leaving[player] = true
    redis.call('ZREM', p .. 'reserved', id .. ' ' .. player)
  end
  for _, seat in ipairs(seats) do
    if not leaving[seat[2]] then kept[#kept + 1] = seat end
  end
  local left = #seats - #kept
  if left > 0 then
    redis.call('HSET', record, 'seats', #kept > 0 and cjson.encode(kept) or '[]')
    if f[2] then
      local queue = f[3] and cjson.decode(f[3]).queue or ''
      redis.call('HSET', record, 'free_seats', tonumber(f[2]) + left)
      redis.call('ZADD', p .. 'open:' .. queue, tonumber(f[2]) + left, id)
    end
    if wants_anybody(f[4]) then note_want(p, record, id) end
  end
  return left
end

-- Note in the record who has left, and of which team, and who is back; and for the matchmaker who leaves its queue's match.
local function note_leavers(p, record, id, came, left)
  local f = redis.call('HMGET', record, 'seats', 'left', 'options')
  local known, teams, changed = f[2] and cjson.decode(f[2]) or {}, {}, false
  local queue = f[3] and cjson.decode(f[3]).queue or ''
  for _, seat in ipairs(cjson.decode(f[1])) do teams[seat[2]] = seat[3] end
  for _, player in ipairs(came) do
    if known[player] then known[player], changed = nil, true end
  end
  for _, player in ipairs(left) do
    if teams[player] and not known[player] then
      known[player], changed = teams[player], true
      if queue ~= '' then
        redis.call('RPUSH', p .. 'leavers:' .. queue, id .. ' ' .. player)
        redis.call('LTRIM', p .. 'leavers:' .. queue, -MOST_LEAVERS, -1)
        redis.call('EXPIRE', p .. 'leavers:' .. queue, LEAVERS_TTL_S)
      end
    end
  end
  if not changed then return end
  if next(known) then redis.call('HSET', record, 'left', cjson.encode(known)) else redis.call('HDEL', record, 'left') end
end

-- KEYS: session, the fleet's prefix. ARGV: session id, epoch, players who have come, players who have left for good (JSON lists), 'open' to
-- free seats only of a session that takes more players or whose game wants some: in any other the seat stays its player's, who may come back; those of them
-- who had to stay (JSON list); what the game wants from now on (JSON: team → players), '' for what it wanted before. One step, so that whoever reads what is
-- wanted finds the seats as they were when the game said so, or later.
-- Returns how many seats are free now that were not, or 'GONE'.
local function session_seats(keys, args)
  local record, p, id = keys[1], keys[2], args[1]
  local held = redis.call('HMGET', record, 'epoch', 'state', 'free_seats', 'want')
  if held[1] ~= args[2] or held[2] == 'ended' then return 'GONE' end
  local came = cjson.decode(args[3])
  for _, player in ipairs(came) do redis.call('ZREM', p .. 'reserved', id .. ' ' .. player) end
  note_leavers(p, record, id, came, cjson.decode(args[6]))
  local want = held[4]
  if args[7] ~= '' and args[7] ~= (want or '{}') then
    want = args[7]
    redis.call('HSET', record, 'want', want)
    note_want(p, record, id)
  end
  if args[5] == 'open' and not held[3] and not wants_anybody(want) then return 0 end
  return vacate(p, record, id, cjson.decode(args[4]))
end

local RESERVED_MS = 90000 -- as in allocator/seats.lua
local AT_ONCE = 100

-- KEYS: the fleet's prefix. Frees the seats of players who were given one in a running session and have not come in time. Returns them: session id, player…
local function session_expire_seats(keys)
  local p, now, expired = keys[1], now_ms(), {}
  -- Later than can be: this store's clock is behind that of the one before it.
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', p .. 'reserved', '(' .. now + RESERVED_MS, '+inf', 'LIMIT', 0, AT_ONCE)) do
    redis.call('ZADD', p .. 'reserved', now + RESERVED_MS, member)
  end
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', p .. 'reserved', 0, now, 'LIMIT', 0, AT_ONCE)) do
    redis.call('ZREM', p .. 'reserved', member)
    local id, player = string.match(member, '^(%S+) (.*)$')
    local record = p .. 'session:' .. id
    local state = redis.call('HGET', record, 'state')
    if state and state ~= 'ended' and vacate(p, record, id, {player}) > 0 then
      expired[#expired + 1] = id
      expired[#expired + 1] = player
    end
  end
  return expired
end

-- KEYS: beat. ARGV: wake channel. The server is no more.
local function session_goodbye(keys, args)
  redis.call('DEL', keys[1])
  redis.call('PUBLISH', args[1], '')
  return 'OK'
end

-- A store that is full takes no new checkpoints, and everything else: matches go on and end, and servers stay known to live.
local function register(name, callback)
  redis.register_function{function_name = name, callback = callback, flags = {'allow-oom'}}
end
register('session_beat', session_beat)
register('session_goodbye', session_goodbye)
register('session_hand_over', session_hand_over)
register('session_kick', session_kick)
register('session_open', session_open)
register('session_seats', session_seats)
register('session_expire_seats', session_expire_seats)
register('session_end', session_end)
redis.register_function('session_checkpoint', session_checkpoint)
