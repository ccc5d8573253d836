-- Running sessions that want players. Part of the library that queue.lua begins.

-- Backfills: session → JSON {version, teams: {name: open places}, …}; `busy` names the match that is being seated, so that no two are at once.

local function backfill_of(p, session)
  local raw = redis.call('HGET', p .. 'backfills', session)
  return raw and cjson.decode(raw)
end

-- ARGV: session, version that the caller knows (0: none), backfill (JSON, with the next version). Returns {1, version}, or {0, version} when the caller's is
-- not the newest or players are being seated right now, or when a director (its lease token is the last of ARGV) leads no more.
local function backfill_put(keys, args)
  local p, now = keys[1], backfill_of(keys[1], args[1])
  if args[4] and fenced(p, args[4]) then return {0, 0} end
  local version = now and now.version or 0
  if version == tonumber(args[2]) + 1 and redis.call('HGET', p .. 'backfills', args[1]) == args[3] then return {1, version} end -- said before
  if version ~= tonumber(args[2]) or (now and now.busy and redis.call('HEXISTS', p .. 'matches', now.busy) == 1) then return {0, version} end
  redis.call('HSET', p .. 'backfills', args[1], args[3])
  wake(p)
  return {1, version + 1}
end

-- ARGV: session, lease token if a director says so. It wants nobody any more. Returns 1 when it did; 'FENCED'.
local function backfill_drop(keys, args)
  if args[2] and fenced(keys[1], args[2]) then return 'FENCED' end
  return redis.call('HDEL', keys[1] .. 'backfills', args[1])
end

-- ARGV: session, ticket ids. Nobody of these tickets plays there any more; the others are kept on.
local function playing_prune(keys, args)
  local key = keys[1] .. 'playing:' .. args[1]
  if #args > 1 then redis.call('HDEL', key, unpack(args, 2)) end
  redis.call('EXPIRE', key, PLAYING_TTL_S)
  return 'OK'
end

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
redis.register_function('playing_prune', playing_prune)
