#!lua name=warmfleet_sessions
-- What a game server may do to its sessions. Every function is fenced: a call whose server or epoch is not the record's changes nothing and
-- returns 'GONE'. Check and change must be one step, since the session may be moved to another server between them.
-- Keys of one call share the fleet's hash tag. Layout: gameserver/sessions/valkey.py.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- KEYS: session, checkpoint. ARGV: server, epoch. Returns 'GONE', or {record as a flat list, checkpoint or false}.
local function session_open(keys, args)
  local held = redis.call('HMGET', keys[1], 'server', 'epoch', 'state')
  if held[1] ~= args[1] or held[2] ~= args[2] or held[3] == 'ended' then return 'GONE' end
  if held[3] == 'pending' then
    redis.call('HSET', keys[1], 'state', 'live', 'changed_ms', now_ms())
  end
  return {redis.call('HGETALL', keys[1]), redis.call('GET', keys[2])}
end

-- KEYS: session, checkpoint. ARGV: epoch, tick, state, time to live in s. Returns 'GONE' or 'OK'; an older tick changes nothing.
local function session_checkpoint(keys, args)
  local held = redis.call('HMGET', keys[1], 'epoch', 'state', 'checkpoint_tick')
  if held[1] ~= args[1] or held[2] == 'ended' then return 'GONE' end
  if tonumber(args[2]) > tonumber(held[3] or 0) then
    redis.call('SET', keys[2], args[3], 'EX', args[4])
    redis.call('HSET', keys[1], 'checkpoint_tick', args[2])
    redis.call('EXPIRE', keys[1], args[4])
  end
  return 'OK'
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
  end
  return 'OK'
end

redis.register_function('session_open', session_open)
redis.register_function('session_checkpoint', session_checkpoint)
redis.register_function('session_end', session_end)
