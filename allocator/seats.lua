#!lua name=warmfleet_seats
-- Seats of running sessions: who else may come in. (Who has come and who has left: gameserver/sessions/sessions.lua.) Whether a party fits and the
-- seats it gets are one step, since two parties may come for the same seats; a party gets all of its seats or none, and all in one session. A seat
-- is kept for RESERVED_MS until its player comes.
-- A session takes more players while its record has `free_seats`; those with any left are in `open:<queue>` (the option `queue` of the match), by how many. That set only proposes: the
-- record decides, and what no longer fits is taken out when it is met. Keys as in shelf.lua: KEYS[1] is the fleet's prefix. Layout: allocator/shelf.py.

local CANDIDATES = 100 -- sessions looked at for one party
local PARTY_TTL_S = 3600 -- for how long a request's repetition is known
local RESERVED_MS = 90000 -- for how long a seat is kept for who has not come: a token lives for a minute; as in gameserver/sessions/sessions.lua

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function encode(seats)
  if #seats == 0 then return '[]' end
  return cjson.encode(seats)
end

local function list_open(p, id, queue, free)
  if free > 0 then redis.call('ZADD', p .. 'open:' .. queue, free, id) else redis.call('ZREM', p .. 'open:' .. queue, id) end
end

local function queue_of(options) return options and cjson.decode(options).queue or '' end

-- Returns seats, free seats and queue of a session that may be seated at; nil when it is over, draining or takes nobody.
local function held(record)
  local f = redis.call('HMGET', record, 'state', 'seats', 'free_seats', 'options')
  if (f[1] ~= 'pending' and f[1] ~= 'live') or not f[3] then return nil end
  return {seats = cjson.decode(f[2]), free = tonumber(f[3]), queue = queue_of(f[4])}
end

-- Seat those of a party who are not seated yet. Returns true when all of them are now.
local function seat(p, id, record, h, party)
  local taken, here = {}, {}
  for _, s in ipairs(h.seats) do taken[s[1]] = true here[s[2]] = true end
  local missing = {}
  for _, member in ipairs(party) do
    if not here[member[1]] then missing[#missing + 1] = member end
  end
  if #missing > h.free then return false end
  local index = 0
  for _, member in ipairs(missing) do
    while taken[index] do index = index + 1 end
    taken[index] = true
    h.seats[#h.seats + 1] = {index, member[1], member[2]}
    redis.call('ZADD', p .. 'reserved', now_ms() + RESERVED_MS, id .. ' ' .. member[1])
  end
  if #missing > 0 then
    redis.call('HSET', record, 'seats', encode(h.seats), 'free_seats', h.free - #missing)
    list_open(p, id, h.queue, h.free - #missing)
  end
  return true
end

-- KEYS[2]: session. ARGV: session id, epoch, free seats. From now on so many more players may come; 0: no more. Returns 1, or 'GONE' when the session
-- is over or at another epoch.
local function seats_open(keys, args)
  local p, record, id = keys[1], keys[2], args[1]
  local f = redis.call('HMGET', record, 'state', 'epoch', 'options')
  if not f[1] or f[1] == 'ended' or f[2] ~= args[2] then return 'GONE' end
  -- Closed is without the field: a seat that is left must not open it again.
  if args[3] == '0' then redis.call('HDEL', record, 'free_seats') else redis.call('HSET', record, 'free_seats', args[3]) end
  list_open(p, id, queue_of(f[3]), tonumber(args[3]))
  return 1
end

-- KEYS[2]: session. ARGV: session id, party (JSON: [[player, team]…]). Seats a party in this session. Returns {'SEATED', record}, {'FULL', free
-- seats}, or {'GONE'} when it is over or takes nobody. Asked again, it returns the same.
local function seats_reserve(keys, args)
  local p, record, id = keys[1], keys[2], args[1]
  local h = held(record)
  if not h then return {'GONE'} end
  if not seat(p, id, record, h, cjson.decode(args[2])) then return {'FULL', h.free} end
  return {'SEATED', redis.call('HGETALL', record)}
end

-- ARGV: request id, queue, party (JSON), strategy. Seats a party in whichever session of the queue fits it: with the fewest free seats that are
-- enough ('Packed'), or with the most. Returns {'SEATED', session id, record} or {'NONE'}. Asked again by the same id, it returns the same session
-- as long as that goes on.
local function seats_find(keys, args)
  local p, open, party = keys[1], keys[1] .. 'open:' .. args[2], cjson.decode(args[3])
  local request = p .. 'party:' .. args[1]
  local before = redis.call('GET', request)
  if before then
    local h = held(p .. 'session:' .. before)
    if h and seat(p, before, p .. 'session:' .. before, h, party) then
      return {'SEATED', before, redis.call('HGETALL', p .. 'session:' .. before)}
    end
  end
  local fitting = args[4] == 'Distributed' and redis.call('ZREVRANGEBYSCORE', open, '+inf', #party, 'LIMIT', 0, CANDIDATES)
    or redis.call('ZRANGEBYSCORE', open, #party, '+inf', 'LIMIT', 0, CANDIDATES)
  for _, id in ipairs(fitting) do
    local record = p .. 'session:' .. id
    local h = held(record)
    if h and seat(p, id, record, h, party) then
      redis.call('SET', request, id, 'EX', PARTY_TTL_S)
      return {'SEATED', id, redis.call('HGETALL', record)}
    end
    -- Over, or fuller than it was listed; one that drains lists itself again once it has moved.
    if h then list_open(p, id, h.queue, h.free) else redis.call('ZREM', open, id) end
  end
  return {'NONE'}
end

redis.register_function('seats_open', seats_open)
redis.register_function('seats_reserve', seats_reserve)
redis.register_function('seats_find', seats_find)
