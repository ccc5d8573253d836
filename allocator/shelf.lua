#!lua name=warmfleet_shelf
-- The shelf of one fleet: which rooms are free, who waits for one, which session is where. Check and change are one function, since a room
-- chosen in one step and marked in another could be given twice. All keys of a call share the fleet's hash tag; keys of servers are derived
-- from the prefix `wf:{fleet}:`, which every function takes as KEYS[1] (a prefix, never itself a key). Layout: allocator/shelf.py.
-- What only a keeper does takes its lease's token first, and answers 'FENCED' once the lease is another's or over: a keeper that slept through it
-- changes nothing. The token '' is an operator's, who needs no lease.

local WAITER_ALIVE_MS = 2000 -- a waiter that has not asked again for so long is gone
local SESSION_TTL_S = 86400
local ENDED_TTL_S = 3600
local MOST_LOSSES = 5 -- servers that a session may lose in a row without getting any further
local DEAD_MS = 3600000 -- for how long a server dropped as dead is remembered
local STIR_MS = 1000 -- a keeper looks by itself so often; within it one wake-up is as good as many
local JUMP_MS = 10000 -- as in gameserver/sessions/clock.py; a sign of life lasts less
local CALLED = 1000 -- waiters called at once; the others ask by themselves soon

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function fenced(p, token) return token ~= '' and redis.call('GET', p .. 'keeper') ~= token end

-- When each fleet's keeper was woken and has not looked since. Not a key: it would be written and replicated with each claim, and all that is lost with
-- it is a wake-up too many.
local stirred = {}

-- Wake the keeper, once until it has looked.
local function stir(p, now)
  local last = stirred[p]
  if last and now >= last and now - last < STIR_MS then return end
  stirred[p] = now
  redis.call('PUBLISH', p .. 'wake', '')
end

local function expire_waiters(p, now)
  while true do
    local first = redis.call('ZRANGE', p .. 'waiters', 0, 0)[1]
    if not first then return end
    local alive = tonumber(redis.call('HGET', p .. 'waiting', first) or '0')
    -- Later than can be: this store's clock is behind that of the one before it. It need only ask again.
    if alive >= now and alive <= now + WAITER_ALIVE_MS then return end
    redis.call('ZREM', p .. 'waiters', first)
    redis.call('HDEL', p .. 'waiting', first)
  end
end

local function stop_waiting(p, id)
  redis.call('ZREM', p .. 'waiters', id)
  redis.call('HDEL', p .. 'waiting', id)
end

-- Rooms that can be claimed, counted up to a limit.
local function free_rooms(p, limit)
  local free, shelf = 0, redis.call('ZRANGE', p .. 'shelf', 0, limit - 1, 'WITHSCORES')
  for i = 2, #shelf, 2 do
    free = free + tonumber(shelf[i])
    if free >= limit then return limit end
  end
  return free
end

-- Tell the waiters for whom there is a room now, by name: the others need not ask.
local function call_waiters(p)
  if redis.call('ZCARD', p .. 'waiters') == 0 then return end
  local free = free_rooms(p, CALLED)
  if free > 0 then
    redis.call('PUBLISH', p .. 'called', table.concat(redis.call('ZRANGE', p .. 'waiters', 0, free - 1), ' '))
  end
end

-- Set a server's place on the shelf from its free rooms.
local function reshelve(p, server)
  local free = redis.call('LLEN', p .. 'rooms:' .. server)
  if free == 0 or redis.call('HGET', p .. 'server:' .. server, 'draining') == '1' then
    redis.call('ZREM', p .. 'shelf', server)
  else
    redis.call('ZADD', p .. 'shelf', free, server)
    call_waiters(p)
  end
end

-- Take a room for a session, of the server with the fewest free ones ('Packed') or the most ('Distributed'), but not of `avoid`. Returns
-- server, room, host, ports and when the server was registered; nil when there is none.
local function take_room(p, id, strategy, avoid)
  local server
  local spread = strategy == 'Distributed'
  local last = avoid and '1' or '0'
  local found = spread and redis.call('ZRANGE', p .. 'shelf', '0', last, 'REV') or redis.call('ZRANGE', p .. 'shelf', '0', last)
  for _, candidate in ipairs(found) do
    if candidate ~= avoid then server = candidate break end
  end
  if not server then return nil end
  local key = p .. 'server:' .. server
  local room = redis.call('LPOP', p .. 'rooms:' .. server)
  redis.call('HSET', key, 'room:' .. room, id)
  -- What is on the shelf is not draining and has a free room, so its score is enough to go by.
  if tonumber(redis.call('ZINCRBY', p .. 'shelf', '-1', server)) < 1 then redis.call('ZREM', p .. 'shelf', server) end
  local place = redis.call('HMGET', key, 'host', 'ports', 'registered_ms')
  return server, room, place[1], place[2], place[3]
end

-- Give the room of a server back; with recycle '0' it is spent instead. Only the session that holds it can.
local function free_at(p, id, server, room, recycle)
  local key, field = p .. 'server:' .. server, 'room:' .. room
  if redis.call('HGET', key, field) ~= id then return end
  redis.call('HDEL', key, field)
  if recycle == '0' then
    redis.call('HINCRBY', key, 'spent', 1)
  else
    redis.call('RPUSH', p .. 'rooms:' .. server, room)
    reshelve(p, server)
  end
end

-- Give the room back that was reserved for a session's hand-over, if one was.
local function unreserve(p, id, record)
  local kept = redis.call('HMGET', record, 'next_server', 'next_room')
  if not kept[1] then return end
  free_at(p, id, kept[1], kept[2], '1')
  redis.call('HDEL', record, 'next_server', 'next_room', 'next_host', 'next_ports')
end

local function free_room(p, id, record, recycle)
  local held = redis.call('HMGET', record, 'server', 'room')
  if held[1] then
    free_at(p, id, held[1], held[2], recycle)
    return unreserve(p, id, record)
  end
  -- Its record has expired, so only the servers know where it was.
  for _, server in ipairs(redis.call('SMEMBERS', p .. 'servers')) do
    local fields = redis.call('HGETALL', p .. 'server:' .. server)
    for i = 1, #fields, 2 do
      local room = string.match(fields[i], '^room:(%d+)$')
      if room and fields[i + 1] == id then free_at(p, id, server, room, recycle) end
    end
  end
end

-- Tell of a session; `rest` is more JSON.
local function tell_session(p, id, kind, epoch, rest)
  local kept = events_kept(p)
  if not kept then return end
  local what = '{"session":"' .. id .. '","epoch":' .. epoch .. rest .. '}'
  emit(p, kept, now_ms(), 'session.' .. kind, id .. ':' .. epoch .. ':' .. kind, id, what)
end

local function tell_server(p, server, kind, rest)
  local kept, now = events_kept(p), now_ms()
  if kept then
    emit(p, kept, now, 'server.' .. kind, server .. ':' .. string.format('%.0f', now) .. ':' .. kind, server, '{"server":"' .. server .. '"' .. rest .. '}')
  end
end

local function finish(p, id, record, results)
  tell_session(p, id, 'ended', redis.call('HGET', record, 'epoch') or '0', ',"results":' .. results)
  redis.call('HSET', record, 'state', 'ended', 'results', results, 'changed_ms', now_ms())
  redis.call('EXPIRE', record, ENDED_TTL_S)
  redis.call('DEL', p .. 'checkpoint:' .. id)
  redis.call('SREM', p .. 'lost', id)
end

-- ARGV: token, lease in ms, '1' to take it when it is nobody's. Takes the keeper's lease, or holds on to it. Returns 1 when it is this token's now.
local function shelf_hold(keys, args)
  local key = keys[1] .. 'keeper'
  local holder = redis.call('GET', key)
  -- Longer than a lease lasts: this store's clock is behind that of the one before it, and the holder may be gone.
  if holder and holder ~= args[1] and redis.call('PTTL', key) > 2 * tonumber(args[2]) then redis.call('PEXPIRE', key, args[2]) end
  if holder ~= args[1] and (holder or args[3] ~= '1') then return 0 end
  redis.call('SET', key, args[1], 'PX', args[2])
  return 1
end

-- ARGV: token. Gives the lease up, so that the next keeper need not wait for its end.
local function shelf_yield(keys, args)
  if redis.call('GET', keys[1] .. 'keeper') == args[1] then redis.call('DEL', keys[1] .. 'keeper') end
  return 1
end

-- ARGV: rooms, time to live in ms. How many rooms to keep claimable, in place of the fleet's own figure; '' ends that.
local function shelf_target(keys, args)
  if args[1] == '' then
    redis.call('DEL', keys[1] .. 'target')
  else
    redis.call('SET', keys[1] .. 'target', args[1], 'PX', args[2])
  end
  stir(keys[1], now_ms())
  return 1
end

-- ARGV: token, server, host, ports (JSON), version, rooms. Registers an allocated server with all rooms free; known already: only its address
-- is set. Returns 1 when it is new.
local function shelf_register(keys, args)
  local p, server = keys[1], args[2]
  if fenced(p, args[1]) then return 'FENCED' end
  local key = p .. 'server:' .. server
  local new = redis.call('SADD', p .. 'servers', server)
  redis.call('HSET', key, 'host', args[3], 'ports', args[4])
  if new == 1 then
    redis.call('HSET', key, 'version', args[5], 'rooms', args[6], 'spent', 0, 'draining', 0, 'registered_ms', now_ms())
    redis.call('DEL', p .. 'rooms:' .. server)
    for room = 0, tonumber(args[6]) - 1 do redis.call('RPUSH', p .. 'rooms:' .. server, room) end
    reshelve(p, server)
    stir(p, now_ms())
    tell_server(p, server, 'registered', ',"version":"' .. args[5] .. '","rooms":' .. args[6])
  end
  return new
end

-- KEYS[2]: session. ARGV: session id, seats (JSON), options (JSON), temperature, for how long it has waited in ms ('' when it does not wait for a
-- room), strategy, free seats (more players may come later when it is above 0).
-- Returns {'NEW', server, room, host, ports, temperature}, {'HAVE', record} if it was claimed before, {'WAIT', waiters ahead} or {'NONE'}. In
-- order: nobody overtakes a waiter. The temperature is 'shelf' also for a waiter whose server was there before it came.
local function shelf_claim(keys, args)
  local p, record, id = keys[1], keys[2], args[1]
  local now, waiters, ahead = now_ms(), 0, 0
  if redis.call('EXISTS', record, p .. 'waiters') > 0 then -- mostly neither is there
    if redis.call('EXISTS', record) == 1 then
      stop_waiting(p, id)
      return {'HAVE', redis.call('HGETALL', record)}
    end
    waiters = redis.call('ZCARD', p .. 'waiters')
    expire_waiters(p, now)
    ahead = redis.call('ZRANK', p .. 'waiters', id) or redis.call('ZCARD', p .. 'waiters')
  end
  local server, room, host, ports, registered
  if ahead == 0 or free_rooms(p, ahead + 1) > ahead then server, room, host, ports, registered = take_room(p, id, args[6]) end
  if not server then
    if args[5] == '' then return {'NONE'} end
    if waiters == 0 or redis.call('ZSCORE', p .. 'waiters', id) == false then
      redis.call('ZADD', p .. 'waiters', redis.call('INCR', p .. 'waiter-seq'), id)
      stir(p, now)
    end
    redis.call('HSET', p .. 'waiting', id, now + WAITER_ALIVE_MS)
    return {'WAIT', ahead}
  end
  if waiters > 0 then stop_waiting(p, id) end
  local temperature, waited = args[4], 0
  if args[5] ~= '' then
    waited = tonumber(args[5])
    if tonumber(registered) <= now - waited then temperature = 'shelf' end
  end
  redis.call('HSET', record, 'epoch', '1', 'state', 'pending', 'server', server, 'room', room, 'host', host, 'ports', ports,
    'seats', args[2], 'temperature', temperature, 'changed_ms', now)
  redis.call('EXPIRE', record, SESSION_TTL_S)
  -- What is not as it mostly is.
  if args[3] ~= '{}' then redis.call('HSET', record, 'options', args[3]) end
  if waited > 0 then redis.call('HSET', record, 'waited_ms', waited) end
  if args[7] ~= '0' then
    redis.call('HSET', record, 'free_seats', args[7])
    redis.call('ZADD', p .. 'open:' .. (cjson.decode(args[3]).queue or ''), args[7], id)
  end
  redis.call('INCR', p .. 'claims') -- the autoscaler forecasts from it
  stir(p, now) -- the keeper fills the shelf again
  tell_session(p, id, 'claimed', '1', ',"server":"' .. server .. '","temperature":"' .. temperature .. '","waitedMs":' .. waited .. ',"seats":' .. args[2])
  return {'NEW', server, room, host, ports, temperature}
end

-- KEYS[2]: session. ARGV: session id, recycle. Gives up a request: a waiter leaves the queue, a session nobody has joined ends. Returns 1 when
-- a session was ended.
local function shelf_abandon(keys, args)
  local p, record, id = keys[1], keys[2], args[1]
  local waited = redis.call('ZREM', p .. 'waiters', id)
  redis.call('HDEL', p .. 'waiting', id)
  if redis.call('HGET', record, 'state') ~= 'pending' then
    if waited == 1 then call_waiters(p) end -- those behind it are one further
    return 0
  end
  free_room(p, id, record, args[2])
  finish(p, id, record, '{"error":"abandoned"}')
  stir(p, now_ms())
  return 1
end

-- KEYS[2]: session. ARGV: token, session id, recycle ('1' or '0'). Frees the room of a session that has ended, or whose record is gone. Returns 1
-- then.
local function shelf_release(keys, args)
  local p, record, id = keys[1], keys[2], args[2]
  if fenced(p, args[1]) then return 'FENCED' end
  local state = redis.call('HGET', record, 'state')
  if state and state ~= 'ended' then return 0 end
  free_room(p, id, record, args[3])
  redis.call('SREM', p .. 'ended', id)
  redis.call('SREM', p .. 'lost', id)
  stir(p, now_ms())
  return 1
end

-- KEYS[2]: session. ARGV: token, session id, results (JSON), recycle, while: 'pending' or 'lost' to end it only if it still is, '' in any state.
-- Ends a session and frees its room. Returns 1 when it was not over.
local function shelf_end(keys, args)
  local p, record, id = keys[1], keys[2], args[2]
  if fenced(p, args[1]) then return 'FENCED' end
  local state = redis.call('HGET', record, 'state')
  if not state or state == 'ended' then redis.call('SREM', p .. 'lost', id) return 0 end
  -- A player may have come, or a server been found, since the keeper looked.
  if args[5] == 'pending' and state ~= 'pending' then return 0 end
  if args[5] == 'lost' and redis.call('SISMEMBER', p .. 'lost', id) == 0 then return 0 end
  free_room(p, id, record, args[4])
  finish(p, id, record, args[3])
  stir(p, now_ms())
  return 1
end

-- How often in a row a session has lost its server, this time included, without getting any further in between.
local function losses_of(record)
  local held = redis.call('HMGET', record, 'checkpoint_tick', 'lost_tick', 'losses')
  return held[2] == (held[1] or '0') and held[3] + 1 or 1, held[1] or '0'
end

-- KEYS[2]: session. ARGV: token, session id, epoch that it has, strategy. Moves a session to another server: epoch + 1, a new room (the one
-- that is reserved for it, if one is), the old one given back. Returns {'HAVE', record}, {'NONE'} when there is no room, {'GONE'} when it has ended or another has moved it.
-- A match that loses one server after another and gets no further is what brings them down, with all their other matches: it ends.
local function shelf_move(keys, args)
  local p, record, id = keys[1], keys[2], args[2]
  if fenced(p, args[1]) then return 'FENCED' end
  local held = redis.call('HMGET', record, 'epoch', 'state', 'server', 'room', 'next_server', 'next_room', 'next_host', 'next_ports')
  if held[1] ~= args[3] or held[2] == 'ended' then
    redis.call('SREM', p .. 'lost', id)
    return {'GONE'}
  end
  -- A session that still has its room leaves that server; a lost one may well land on the same name, which is a new server then.
  local there = redis.call('HGET', p .. 'server:' .. held[3], 'room:' .. held[4]) == id
  local losses, tick = 0, ''
  if not there then losses, tick = losses_of(record) end
  if losses > MOST_LOSSES then
    finish(p, id, record, '{"error":"its servers fail, one after another"}')
    stir(p, now_ms())
    return {'FAILING'}
  end
  local server, room, host, ports = held[5], held[6], held[7], held[8]
  if server then
    redis.call('HDEL', record, 'next_server', 'next_room', 'next_host', 'next_ports')
  else
    server, room, host, ports = take_room(p, id, args[4], there and held[3] or nil)
  end
  if not server then return {'NONE'} end
  if there then free_at(p, id, held[3], held[4], '1') end
  redis.call('HSET', record, 'epoch', held[1] + 1, 'changed_ms', now_ms(), 'server', server, 'room', room, 'host', host, 'ports', ports)
  if losses > 0 then redis.call('HSET', record, 'losses', losses, 'lost_tick', tick) end
  redis.call('SREM', p .. 'lost', id)
  redis.call('PUBLISH', p .. 'inbox:' .. server, id) -- so that it is there, restored, when its players come
  stir(p, now_ms())
  tell_session(p, id, 'moved', held[1] + 1, ',"from":"' .. held[3] .. '","server":"' .. server .. '","live":false')
  return {'HAVE', redis.call('HGETALL', record)}
end

-- KEYS[2]: session. ARGV: token, session id, epoch that it has, strategy. Keeps a room on another server for a session whose own is to go: where is
-- decided here, when by its server, which hands it over with its last checkpoint. Returns 1 when a room is kept for it, 0 when there is none, -1
-- when it has moved or ended.
local function shelf_reserve(keys, args)
  local p, record, id = keys[1], keys[2], args[2]
  if fenced(p, args[1]) then return 'FENCED' end
  local held = redis.call('HMGET', record, 'epoch', 'state', 'server', 'next_server')
  if held[1] ~= args[3] or held[2] == 'ended' then return -1 end
  if not held[4] then
    local server, room, host, ports = take_room(p, id, args[4], held[3])
    if not server then return 0 end
    redis.call('HSET', record, 'state', 'draining', 'next_server', server, 'next_room', room, 'next_host', host, 'next_ports', ports)
    stir(p, now_ms())
  end
  redis.call('PUBLISH', p .. 'inbox:' .. held[3], id)
  return 1
end

local function forget(p, server)
  redis.call('ZREM', p .. 'shelf', server)
  redis.call('SREM', p .. 'servers', server)
  redis.call('DEL', p .. 'server:' .. server, p .. 'rooms:' .. server, p .. 'beat:' .. server)
end

-- ARGV: token, server. Takes a server off the shelf for good, only while no session is on it. Returns 1 when done.
local function shelf_unshelve(keys, args)
  local p, server = keys[1], args[2]
  if fenced(p, args[1]) then return 'FENCED' end
  local held = redis.call('HMGET', p .. 'server:' .. server, 'rooms', 'spent')
  if not held[1] then return 0 end
  if redis.call('LLEN', p .. 'rooms:' .. server) + tonumber(held[2]) < tonumber(held[1]) then return 0 end
  forget(p, server)
  tell_server(p, server, 'released', '')
  return 1
end

-- ARGV: token, server, '1' or '0'. A draining server gets no new sessions. Returns 1 when the server is known.
local function shelf_drain(keys, args)
  local p, server = keys[1], args[2]
  if fenced(p, args[1]) then return 'FENCED' end
  local key = p .. 'server:' .. server
  if redis.call('EXISTS', key) == 0 then return 0 end
  redis.call('HSET', key, 'draining', args[3])
  reshelve(p, server)
  stir(p, now_ms())
  return 1
end

-- ARGV: token, server, '1' when its backend still has it. Forgets a server that is gone. Its sessions are put among the lost, in the same step.
-- Returns their ids.
local function shelf_drop(keys, args)
  local p, server = keys[1], args[2]
  if fenced(p, args[1]) then return 'FENCED' end
  local lost, fields = {}, redis.call('HGETALL', p .. 'server:' .. server)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 5) == 'room:' then
      local record = p .. 'session:' .. fields[i + 1]
      local held = redis.call('HMGET', record, 'server', 'next_server')
      if held[2] == server then -- its room was only reserved here
        redis.call('HDEL', record, 'next_server', 'next_room', 'next_host', 'next_ports')
      end
      if not held[1] or held[1] == server then
        -- The time limit for its move begins now, however long it has been live.
        if held[1] then redis.call('HSET', record, 'changed_ms', now_ms()) end
        redis.call('SADD', p .. 'lost', fields[i + 1])
        lost[#lost + 1] = fields[i + 1]
      end
    end
  end
  forget(p, server)
  if args[3] == '1' then redis.call('ZADD', p .. 'dead', now_ms() + DEAD_MS, server) end
  stir(p, now_ms())
  tell_server(p, server, 'lost', ',"sessions":' .. #lost)
  return lost
end

-- The store's clock has jumped (forwards, if `by` is positive): what was stamped before moves along, so that nothing is older for it. What was stamped
-- in the last moments has the new clock's time already.
local function move_along(p, now, by)
  local function along(key, field)
    local at = tonumber(redis.call('HGET', key, field) or '0')
    if at > 0 and (at > now or at < now - JUMP_MS) then redis.call('HSET', key, field, at + by) end
  end
  for _, server in ipairs(redis.call('SMEMBERS', p .. 'servers')) do
    local key = p .. 'server:' .. server
    along(key, 'registered_ms')
    along(key, 'silent_since_ms')
    for _, name in ipairs(redis.call('HKEYS', key)) do
      if string.match(name, '^room:') then along(p .. 'session:' .. redis.call('HGET', key, name), 'changed_ms') end
    end
  end
  for _, id in ipairs(redis.call('SMEMBERS', p .. 'lost')) do along(p .. 'session:' .. id, 'changed_ms') end
  for _, name in ipairs({ 'dead', 'reserved' }) do
    for _, member in ipairs(redis.call('ZRANGE', p .. name, 0, -1)) do redis.call('ZINCRBY', p .. name, by, member) end
  end
end

-- For how long a server that once gave a sign of life has given none, in ms. Noted here and not derived from the sign's own expiry: while the store
-- was away nobody could give one, and all would be taken for dead when it is back.
local function silent_ms(p, server, since, now)
  local lasts = redis.call('PTTL', p .. 'beat:' .. server)
  if lasts > 0 then
    -- Longer than any sign does: the store's clock was set back, and the server may be gone.
    if lasts > JUMP_MS then redis.call('PEXPIRE', p .. 'beat:' .. server, JUMP_MS) end
    if since ~= '0' then redis.call('HSET', p .. 'server:' .. server, 'silent_since_ms', 0) end
    return 0
  end
  if not since then return 0 end
  if since == '0' or tonumber(since) > now then
    redis.call('HSET', p .. 'server:' .. server, 'silent_since_ms', now)
    return 0
  end
  return now - tonumber(since)
end

-- ARGV: token, what the store's clock should show in ms ('' unknown). Everything a keeper looks at: {now in ms, target or false, waiters, ended ids, lost as [id, epoch, age in ms]…, dead ones, servers as
-- [name, version, draining, rooms, spent, free, age in ms, silent for in ms, mode or '', [room, session id, state, age in ms]…]…}. Only a keeper's look
-- (a token, the lease's) notes who is silent and lets itself be woken anew.
local function shelf_observe(keys, args)
  local p, now = keys[1], now_ms()
  local keeper = args[1] ~= ''
  if fenced(p, args[1]) then return 'FENCED' end
  local expected = keeper and tonumber(args[2])
  if expected and math.abs(now - expected) > JUMP_MS then move_along(p, now, now - expected) end
  if keeper then
    stirred[p] = nil
    expire_waiters(p, now)
    redis.call('ZREMRANGEBYSCORE', p .. 'dead', 0, now)
  end
  local servers = {}
  for _, server in ipairs(redis.call('SMEMBERS', p .. 'servers')) do
    local entry, sessions = {}, {}
    local fields = redis.call('HGETALL', p .. 'server:' .. server)
    for i = 1, #fields, 2 do
      local room = string.match(fields[i], '^room:(%d+)$')
      if room then
        local held = redis.call('HMGET', p .. 'session:' .. fields[i + 1], 'state', 'changed_ms')
        sessions[#sessions + 1] = {room, fields[i + 1], held[1] or 'missing', now - tonumber(held[2] or now)}
      else
        entry[fields[i]] = fields[i + 1]
      end
    end
    local silent = keeper and silent_ms(p, server, entry.silent_since_ms, now) or 0
    servers[#servers + 1] = {server, entry.version, entry.draining, entry.rooms, entry.spent,
      redis.call('LLEN', p .. 'rooms:' .. server), now - tonumber(entry.registered_ms), silent,
      redis.call('GET', p .. 'beat:' .. server) or '', sessions}
  end
  local lost = {}
  for _, id in ipairs(redis.call('SMEMBERS', p .. 'lost')) do
    local held = redis.call('HMGET', p .. 'session:' .. id, 'epoch', 'changed_ms')
    lost[#lost + 1] = {id, held[1] or '0', now - tonumber(held[2] or now)}
  end
  return {now, redis.call('GET', p .. 'target'), redis.call('ZCARD', p .. 'waiters'), redis.call('SMEMBERS', p .. 'ended'), lost,
    redis.call('ZRANGE', p .. 'dead', 0, -1), servers}
end

-- ARGV: token, '1' when sessions on draining servers are to be handed over though their servers do not say so. What recovery looks at whenever
-- something happens: {lost as [id, epoch]…, sessions that want another server as [id, epoch, state]…, servers that take no more sessions by
-- their own word and are not draining yet}.
local function shelf_pulse(keys, args)
  local p, lost, leaving, draining = keys[1], {}, {}, {}
  if fenced(p, args[1]) then return 'FENCED' end
  for _, server in ipairs(redis.call('SMEMBERS', p .. 'servers')) do
    local mode, drains = redis.call('GET', p .. 'beat:' .. server), redis.call('HGET', p .. 'server:' .. server, 'draining') == '1'
    local goes = mode == 'migrate' or mode == 'finish'
    if goes and not drains then draining[#draining + 1] = server end
    if goes or drains and args[2] == '1' then
      local fields = redis.call('HGETALL', p .. 'server:' .. server)
      for i = 1, #fields, 2 do
        if string.sub(fields[i], 1, 5) == 'room:' then
          local held = redis.call('HMGET', p .. 'session:' .. fields[i + 1], 'server', 'epoch', 'state', 'next_server')
          local wants = held[3] == 'pending' and goes or (held[3] == 'live' or held[3] == 'draining') and mode ~= 'finish'
          if held[1] == server and wants and not held[4] then leaving[#leaving + 1] = {fields[i + 1], held[2], held[3]} end
        end
      end
    end
  end
  for _, id in ipairs(redis.call('SMEMBERS', p .. 'lost')) do
    lost[#lost + 1] = {id, redis.call('HGET', p .. 'session:' .. id, 'epoch') or '0'}
  end
  return {lost, leaving, draining}
end

-- KEYS[2]: session. Returns its record, empty when there is none. A function, so that replicas can be waited for on the connection that was answered.
local function shelf_find(keys) return redis.call('HGETALL', keys[2]) end

-- No arguments. Returns {1 when a keeper holds the lease, rooms that can be claimed}.
local function shelf_standing(keys)
  return {redis.call('EXISTS', keys[1] .. 'keeper'), free_rooms(keys[1], CALLED)}
end

-- ARGV: server after which to begin ('' for the first), how many sessions. The sessions on servers, server by server in the order of their names:
-- {[session id, record]…, last server looked at or false when none follows}. The lost come with the last ones.
local function shelf_page(keys, args)
  local p, found, last = keys[1], {}, nil
  local function add(id)
    local record = redis.call('HGETALL', p .. 'session:' .. id)
    if #record > 0 then found[#found + 1] = {id, record} end
  end
  local servers = redis.call('SORT', p .. 'servers', 'ALPHA')
  for i, server in ipairs(servers) do
    if server > args[1] then
      local fields = redis.call('HGETALL', p .. 'server:' .. server)
      for f = 1, #fields, 2 do
        if string.sub(fields[f], 1, 5) == 'room:' then add(fields[f + 1]) end
      end
      if #found >= tonumber(args[2]) and i < #servers then return {found, server} end
    end
  end
  for _, id in ipairs(redis.call('SMEMBERS', p .. 'lost')) do add(id) end
  return {found, false}
end

-- What frees, moves or looks goes on in a store that is full; what adds is refused there, whole.
local function register(name, callback)
  redis.register_function{function_name = name, callback = callback, flags = {'allow-oom'}}
end
register('shelf_pulse', shelf_pulse)
register('shelf_reserve', shelf_reserve)
register('shelf_standing', shelf_standing)
register('shelf_find', shelf_find)
register('shelf_page', shelf_page)
register('shelf_hold', shelf_hold)
register('shelf_register', shelf_register)
register('shelf_yield', shelf_yield)
register('shelf_abandon', shelf_abandon)
register('shelf_release', shelf_release)
register('shelf_end', shelf_end)
register('shelf_move', shelf_move)
register('shelf_unshelve', shelf_unshelve)
register('shelf_drain', shelf_drain)
register('shelf_drop', shelf_drop)
register('shelf_observe', shelf_observe)
redis.register_function('shelf_claim', shelf_claim)
redis.register_function('shelf_target', shelf_target)
