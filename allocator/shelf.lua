#!lua name=warmfleet_shelf
-- The shelf of one fleet: which rooms are free, who waits for one, which session is where. Check and change are one function, since a room
-- chosen in one step and marked in another could be given twice. All keys of a call share the fleet's hash tag; keys of servers are derived
-- from the prefix `wf:{fleet}:`, which every function takes as KEYS[1] (a prefix, never itself a key). Layout: allocator/shelf.py.

local WAITER_ALIVE_MS = 2000 -- a waiter that has not asked again for so long is gone
local SESSION_TTL_S = 86400
local ENDED_TTL_S = 3600

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function publish(p) redis.call('PUBLISH', p .. 'wake', '') end

local function expire_waiters(p, now)
  while true do
    local first = redis.call('ZRANGE', p .. 'waiters', 0, 0)[1]
    if not first then return end
    local alive = tonumber(redis.call('HGET', p .. 'waiting', first) or '0')
    if alive >= now then return end
    redis.call('ZREM', p .. 'waiters', first)
    redis.call('HDEL', p .. 'waiting', first)
  end
end

local function stop_waiting(p, id)
  redis.call('ZREM', p .. 'waiters', id)
  redis.call('HDEL', p .. 'waiting', id)
end

-- Set a server's place on the shelf from its free rooms.
local function reshelve(p, server)
  local free = redis.call('LLEN', p .. 'rooms:' .. server)
  if free == 0 or redis.call('HGET', p .. 'server:' .. server, 'draining') == '1' then
    redis.call('ZREM', p .. 'shelf', server)
  else
    redis.call('ZADD', p .. 'shelf', free, server)
  end
end

-- Take a room of the fullest server for a session; returns the fields to set on its record, or nil.
local function take_room(p, id, avoid)
  local server
  for _, candidate in ipairs(redis.call('ZRANGE', p .. 'shelf', 0, avoid and 1 or 0)) do
    if candidate ~= avoid then server = candidate break end
  end
  if not server then return nil end
  local key = p .. 'server:' .. server
  local room = redis.call('LPOP', p .. 'rooms:' .. server)
  redis.call('HSET', key, 'room:' .. room, id)
  reshelve(p, server)
  local place = redis.call('HMGET', key, 'host', 'ports')
  return {'server', server, 'room', room, 'host', place[1], 'ports', place[2]}
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

local function free_room(p, id, record, recycle)
  local held = redis.call('HMGET', record, 'server', 'room')
  if held[1] then return free_at(p, id, held[1], held[2], recycle) end
  -- Its record has expired, so only the servers know where it was.
  for _, server in ipairs(redis.call('SMEMBERS', p .. 'servers')) do
    local fields = redis.call('HGETALL', p .. 'server:' .. server)
    for i = 1, #fields, 2 do
      local room = string.match(fields[i], '^room:(%d+)$')
      if room and fields[i + 1] == id then free_at(p, id, server, room, recycle) end
    end
  end
end

local function finish(p, id, record, results)
  redis.call('HSET', record, 'state', 'ended', 'results', results, 'changed_ms', now_ms())
  redis.call('EXPIRE', record, ENDED_TTL_S)
  redis.call('DEL', p .. 'checkpoint:' .. id)
  redis.call('SREM', p .. 'lost', id)
end

-- ARGV: server, host, ports (JSON), version, rooms. Registers an allocated server with all rooms free; known already: only its address is
-- set. Returns 1 when it is new.
local function shelf_register(keys, args)
  local p, server = keys[1], args[1]
  local key = p .. 'server:' .. server
  local new = redis.call('SADD', p .. 'servers', server)
  redis.call('HSET', key, 'host', args[2], 'ports', args[3])
  if new == 1 then
    redis.call('HSET', key, 'version', args[4], 'rooms', args[5], 'spent', 0, 'draining', 0, 'registered_ms', now_ms())
    redis.call('DEL', p .. 'rooms:' .. server)
    for room = 0, tonumber(args[5]) - 1 do redis.call('RPUSH', p .. 'rooms:' .. server, room) end
    reshelve(p, server)
    publish(p)
  end
  return new
end

-- KEYS[2]: session. ARGV: session id, seats (JSON), options (JSON), temperature, wait ('1' to queue when there is no room).
-- Returns {'NEW', server, room, host, ports}, {'HAVE', record} if it was claimed before, {'WAIT', waiters ahead} or {'NONE'}. In order: nobody overtakes a waiter.
local function shelf_claim(keys, args)
  local p, record, id = keys[1], keys[2], args[1]
  if redis.call('EXISTS', record) == 1 then
    stop_waiting(p, id)
    return {'HAVE', redis.call('HGETALL', record)}
  end
  local now = now_ms()
  local ahead = 0
  if redis.call('ZCARD', p .. 'waiters') > 0 then
    expire_waiters(p, now)
    ahead = redis.call('ZRANK', p .. 'waiters', id) or redis.call('ZCARD', p .. 'waiters')
  end
  local place
  if ahead == 0 then
    place = take_room(p, id)
  else
    local free, shelf = 0, redis.call('ZRANGE', p .. 'shelf', 0, -1, 'WITHSCORES')
    for i = 2, #shelf, 2 do free = free + tonumber(shelf[i]) end
    if free > ahead then place = take_room(p, id) end
  end
  if not place then
    if args[5] ~= '1' then return {'NONE'} end
    if redis.call('ZSCORE', p .. 'waiters', id) == false then
      redis.call('ZADD', p .. 'waiters', redis.call('INCR', p .. 'waiter-seq'), id)
      publish(p)
    end
    redis.call('HSET', p .. 'waiting', id, now + WAITER_ALIVE_MS)
    return {'WAIT', ahead}
  end
  stop_waiting(p, id)
  redis.call('HSET', record, 'epoch', 1, 'state', 'pending', 'seats', args[2], 'options', args[3], 'temperature', args[4],
    'checkpoint_tick', 0, 'created_ms', now, 'changed_ms', now, unpack(place))
  redis.call('EXPIRE', record, SESSION_TTL_S)
  publish(p) -- the keeper fills the shelf again
  return {'NEW', place[2], place[4], place[6], place[8]}
end

-- KEYS[2]: session. ARGV: session id, recycle. Gives up a request: a waiter leaves the queue, a session nobody has joined ends. Returns 1 when
-- a session was ended.
local function shelf_abandon(keys, args)
  local p, record, id = keys[1], keys[2], args[1]
  stop_waiting(p, id)
  if redis.call('HGET', record, 'state') ~= 'pending' then return 0 end
  free_room(p, id, record, args[2])
  finish(p, id, record, '{"error":"abandoned"}')
  publish(p)
  return 1
end

-- KEYS[2]: session. ARGV: session id, recycle ('1' or '0'). Frees the room of a session that has ended, or whose record is gone. Returns 1 then.
local function shelf_release(keys, args)
  local p, record, id = keys[1], keys[2], args[1]
  local state = redis.call('HGET', record, 'state')
  if state and state ~= 'ended' then return 0 end
  free_room(p, id, record, args[2])
  redis.call('SREM', p .. 'ended', id)
  redis.call('SREM', p .. 'lost', id)
  publish(p)
  return 1
end

-- KEYS[2]: session. ARGV: session id, results (JSON), recycle. Ends a session in any state and frees its room. Returns 1 when it was not over.
local function shelf_end(keys, args)
  local p, record, id = keys[1], keys[2], args[1]
  local state = redis.call('HGET', record, 'state')
  if not state or state == 'ended' then redis.call('SREM', p .. 'lost', id) return 0 end
  free_room(p, id, record, args[3])
  finish(p, id, record, args[2])
  publish(p)
  return 1
end

-- KEYS[2]: session. ARGV: session id, epoch that it has. Moves a session to another server: epoch + 1, a new room, the old one given back.
-- Returns {'HAVE', record}, {'NONE'} when there is no room, {'GONE'} when it has ended or another has moved it.
local function shelf_move(keys, args)
  local p, record, id = keys[1], keys[2], args[1]
  local held = redis.call('HMGET', record, 'epoch', 'state', 'server', 'room')
  if held[1] ~= args[2] or held[2] == 'ended' then
    redis.call('SREM', p .. 'lost', id)
    return {'GONE'}
  end
  -- A session that still has its room leaves that server; a lost one may well land on the same name, which is a new server then.
  local there = redis.call('HGET', p .. 'server:' .. held[3], 'room:' .. held[4]) == id
  local place = take_room(p, id, there and held[3] or nil)
  if not place then return {'NONE'} end
  if there then free_room(p, id, record, '1') end
  redis.call('HSET', record, 'epoch', held[1] + 1, 'changed_ms', now_ms(), unpack(place))
  redis.call('SREM', p .. 'lost', id)
  publish(p)
  return {'HAVE', redis.call('HGETALL', record)}
end

local function forget(p, server)
  redis.call('ZREM', p .. 'shelf', server)
  redis.call('SREM', p .. 'servers', server)
  redis.call('DEL', p .. 'server:' .. server, p .. 'rooms:' .. server)
end

-- ARGV: server. Takes a server off the shelf for good, only while no session is on it. Returns 1 when done.
local function shelf_unshelve(keys, args)
  local p, key = keys[1], keys[1] .. 'server:' .. args[1]
  local held = redis.call('HMGET', key, 'rooms', 'spent')
  if not held[1] then return 0 end
  if redis.call('LLEN', p .. 'rooms:' .. args[1]) + tonumber(held[2]) < tonumber(held[1]) then return 0 end
  forget(p, args[1])
  return 1
end

-- ARGV: server, '1' or '0'. A draining server gets no new sessions. Returns 1 when the server is known.
local function shelf_drain(keys, args)
  local p, key = keys[1], keys[1] .. 'server:' .. args[1]
  if redis.call('EXISTS', key) == 0 then return 0 end
  redis.call('HSET', key, 'draining', args[2])
  reshelve(p, args[1])
  return 1
end

-- ARGV: server. Forgets a server that is gone. Its sessions are put among the lost, in the same step. Returns their ids.
local function shelf_drop(keys, args)
  local p, key = keys[1], keys[1] .. 'server:' .. args[1]
  local lost, fields = {}, redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 5) == 'room:' then
      local record = p .. 'session:' .. fields[i + 1]
      -- The time limit for its move begins now, however long it has been live.
      if redis.call('EXISTS', record) == 1 then redis.call('HSET', record, 'changed_ms', now_ms()) end
      redis.call('SADD', p .. 'lost', fields[i + 1])
      lost[#lost + 1] = fields[i + 1]
    end
  end
  forget(p, args[1])
  publish(p)
  return lost
end

-- No arguments. Everything a keeper looks at: {now, waiters, ended ids, lost as [id, epoch, age in ms]…, servers as
-- [name, version, draining, rooms, spent, free, age in ms, [room, session id, state, age in ms]…]…}.
local function shelf_observe(keys)
  local p, now = keys[1], now_ms()
  expire_waiters(p, now)
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
    servers[#servers + 1] = {server, entry.version, entry.draining, entry.rooms, entry.spent,
      redis.call('LLEN', p .. 'rooms:' .. server), now - tonumber(entry.registered_ms), sessions}
  end
  local lost = {}
  for _, id in ipairs(redis.call('SMEMBERS', p .. 'lost')) do
    local held = redis.call('HMGET', p .. 'session:' .. id, 'epoch', 'changed_ms')
    lost[#lost + 1] = {id, held[1] or '0', now - tonumber(held[2] or now)}
  end
  return {now, redis.call('ZCARD', p .. 'waiters'), redis.call('SMEMBERS', p .. 'ended'), lost, servers}
end

redis.register_function('shelf_register', shelf_register)
redis.register_function('shelf_claim', shelf_claim)
redis.register_function('shelf_abandon', shelf_abandon)
redis.register_function('shelf_release', shelf_release)
redis.register_function('shelf_end', shelf_end)
redis.register_function('shelf_move', shelf_move)
redis.register_function('shelf_unshelve', shelf_unshelve)
redis.register_function('shelf_drain', shelf_drain)
redis.register_function('shelf_drop', shelf_drop)
redis.register_function('shelf_observe', shelf_observe)
