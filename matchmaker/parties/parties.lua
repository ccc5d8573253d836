#!lua name=warmfleet_parties
-- Parties: who is in which, who is ready, and under which ticket they wait. A player is in one party at most, so joining, leaving and creating look at the
-- player, the code and the party in one step. All keys share one hash tag; KEYS[1] is the prefix `wf:{parties}:` (never itself a key).
-- Layout: matchmaker/parties/store.py.
--
-- A party is one JSON document: {leader, code, size, event, members: [{id, ready, about}], kicked: [id], ticket, queue, queued_ms,
-- last (the ticket before)}. `about` is a string of
-- JSON, which passes through unread: cjson cannot tell an empty list from an empty map. Members stand in the order in which they came.

local TTL_S = 3600
local GUESS_WINDOW_MS = 300000
local MOST_GUESSES = 10
local MOST_KICKED = 100

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function read(p, id)
  local raw = redis.call('GET', p .. 'party:' .. id)
  return raw and cjson.decode(raw), raw
end

local function position(party, player)
  for i, member in ipairs(party.members) do
    if member.id == player then return i end
  end
end

-- Keep a party for another while.
local function touch(p, id, party)
  redis.call('EXPIRE', p .. 'party:' .. id, TTL_S)
  redis.call('EXPIRE', p .. 'code:' .. party.code, TTL_S)
  for _, member in ipairs(party.members) do redis.call('EXPIRE', p .. 'member:' .. member.id, TTL_S) end
end

-- Write a party as it is now, and tell its watchers; one without members is over. Returns what was written ('' when it is over).
local function keep(p, id, party)
  party.event = party.event + 1
  local raw = ''
  if #party.members == 0 then
    redis.call('DEL', p .. 'party:' .. id, p .. 'code:' .. party.code)
  else
    raw = cjson.encode(party)
    redis.call('SET', p .. 'party:' .. id, raw)
    touch(p, id, party)
  end
  redis.call('PUBLISH', p .. 'changed', id)
  return raw
end

-- The party does not wait any more: everybody says anew that it is ready.
local function gather(party)
  party.last, party.ticket, party.queue, party.queued_ms = party.ticket, nil, nil, nil
  for _, member in ipairs(party.members) do member.ready = false end
end

-- The party that a player is in; a pointer to one that has expired is none.
local function party_of(p, player)
  local id = redis.call('GET', p .. 'member:' .. player)
  if id and redis.call('EXISTS', p .. 'party:' .. id) == 1 then return id end
end

-- ARGV: party id, code, leader, what the leader brings (JSON), most members. Returns {'OK', party}, {'IN', party id} when the player is in one, {'CODE'}
-- when the code is another party's. Asked again with the same id (its reply was lost): 'OK' again.
local function party_create(keys, args)
  local p, id, code, player = keys[1], args[1], args[2], args[3]
  local here, raw = party_of(p, player), nil
  if here == id then
    _, raw = read(p, id)
    return { 'OK', raw }
  end
  if here then return { 'IN', here } end
  if not redis.call('SET', p .. 'code:' .. code, id, 'NX', 'EX', TTL_S) then return { 'CODE' } end
  redis.call('SET', p .. 'member:' .. player, id, 'EX', TTL_S)
  local party = { leader = player, code = code, size = tonumber(args[5]), event = 0, kicked = {}, members = { { id = player, ready = false, about = args[4] } } }
  return { 'OK', keep(p, id, party) }
end

-- ARGV: code, player, what it brings (JSON). Returns {'OK', party id, party} (also when it is in this party already), {'IN', party id} when it is in another,
-- {'WRONG'}, {'LATER', ms} after too many wrong codes, {'FULL'}, {'QUEUED'}, {'KICKED'}.
local function party_join(keys, args)
  local p, code, player = keys[1], args[1], args[2]
  local guesses = p .. 'guesses:' .. player
  if tonumber(redis.call('GET', guesses) or 0) >= MOST_GUESSES then return { 'LATER', redis.call('PTTL', guesses) } end
  local id = redis.call('GET', p .. 'code:' .. code)
  local party, raw
  if id then party, raw = read(p, id) end
  if not party then
    if redis.call('INCR', guesses) == 1 then redis.call('PEXPIRE', guesses, GUESS_WINDOW_MS) end
    return { 'WRONG' }
  end
  local here = party_of(p, player)
  if here == id then return { 'OK', id, raw } end
  if here then return { 'IN', here } end
  for _, kicked in ipairs(party.kicked) do
    if kicked == player then return { 'KICKED' } end
  end
  if party.ticket then return { 'QUEUED' } end
  if #party.members >= party.size then return { 'FULL' } end
  party.members[#party.members + 1] = { id = player, ready = false, about = args[3] }
  redis.call('SET', p .. 'member:' .. player, id, 'EX', TTL_S)
  return { 'OK', id, keep(p, id, party) }
end

-- ARGV: party id, player, '1' when it may not come back. The party loses a member, and with it its ticket; who came first of the others leads, and nobody is
-- ready any more. Returns {'OK', the ticket that was lost or ''}; {'NONE'} when it is no member.
local function party_leave(keys, args)
  local p, id, player = keys[1], args[1], args[2]
  local party = read(p, id)
  local place = party and position(party, player)
  if not place then return { 'NONE' } end
  local ticket = party.ticket or ''
  table.remove(party.members, place)
  redis.call('DEL', p .. 'member:' .. player)
  if args[3] == '1' and #party.kicked < MOST_KICKED then party.kicked[#party.kicked + 1] = player end
  if party.leader == player and #party.members > 0 then party.leader = party.members[1].id end
  if ticket ~= '' then gather(party) end
  keep(p, id, party)
  return { 'OK', ticket }
end

-- ARGV: party id, player, '1' or '0', what it brings (JSON, '' for what it brought). Returns {'OK', party}, {'NONE'}, {'QUEUED'}.
local function party_ready(keys, args)
  local p, id = keys[1], args[1]
  local party = read(p, id)
  local place = party and position(party, args[2])
  if not place then return { 'NONE' } end
  if party.ticket then return { 'QUEUED' } end
  party.members[place].ready = args[3] == '1'
  if args[4] ~= '' then party.members[place].about = args[4] end
  return { 'OK', keep(p, id, party) }
end

-- ARGV: party id, player, queue, ticket id. The party waits under this ticket, which is to be created next, and nothing about it changes meanwhile. Returns
-- {'OK', party}; {'QUEUED', party} when it has a ticket already; {'NONE'}, {'LEADER'} when the player does not lead, {'UNREADY', player}.
local function party_queue(keys, args)
  local p, id = keys[1], args[1]
  local party, raw = read(p, id)
  if not party or not position(party, args[2]) then return { 'NONE' } end
  if party.leader ~= args[2] then return { 'LEADER' } end
  if party.ticket then return { 'QUEUED', raw } end
  for _, member in ipairs(party.members) do
    if member.id ~= party.leader and not member.ready then return { 'UNREADY', member.id } end
  end
  party.queue, party.ticket, party.queued_ms = args[3], args[4], now_ms()
  return { 'OK', keep(p, id, party) }
end

-- ARGV: party id, ticket id. The ticket is over: the party gathers again. Returns 1; 0 when it has another one, or none.
local function party_settle(keys, args)
  local p, id = keys[1], args[1]
  local party = read(p, id)
  if not party or party.ticket ~= args[2] then return 0 end
  gather(party)
  keep(p, id, party)
  return 1
end

-- ARGV: party id. Whoever looks keeps it. Returns {now in ms, party or false}.
local function party_fetch(keys, args)
  local party, raw = read(keys[1], args[1])
  if party then touch(keys[1], args[1], party) end
  return { now_ms(), raw or false }
end

-- ARGV: player. Returns the id of the party that it is in, or false.
local function party_find(keys, args) return party_of(keys[1], args[1]) or false end

redis.register_function('party_create', party_create)
redis.register_function('party_join', party_join)
redis.register_function('party_leave', party_leave)
redis.register_function('party_ready', party_ready)
redis.register_function('party_queue', party_queue)
redis.register_function('party_settle', party_settle)
redis.register_function('party_fetch', party_fetch)
redis.register_function('party_find', party_find)
