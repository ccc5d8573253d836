-- Lifecycle events (docs/events.md), written in the same function as the decision that they tell of. `library.py` puts this before every library.
-- They are written while somebody keeps them: `p events:keep` is for how long, in ms. What cannot be written (a full store) never undoes a decision.

local function events_kept(p) return redis.call('GET', p .. 'events:keep') end

-- RFC 3339 of Unix ms, by the civil calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
local function rfc3339(ms)
  local s = math.floor(ms / 1000)
  local days, rest = math.floor(s / 86400), s % 86400
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, doy - math.floor((153 * mp + 2) / 5) + 1,
    math.floor(rest / 3600), math.floor(rest / 60) % 60, rest % 60, ms % 1000)
end

-- `kept`: what `events_kept` returned. `id` is unique for its source and the same however often it is told; `data` is JSON.
local function emit(p, kept, now, kind, id, subject, data)
  local queue = string.match(p, '^wf:q:{(.*)}:$')
  local source = queue and '/queues/' .. queue or '/fleets/' .. string.match(p, '^wf:{(.*)}:$')
  redis.pcall('XADD', p .. 'events', 'MINID', '~', string.format('%.0f', now - kept), '*', 'event',
    '{"specversion":"1.0","id":"' .. id .. '","source":"' .. source .. '","type":"dev.warmfleet.' .. kind .. '.v1","subject":"' .. subject ..
    '","time":"' .. rfc3339(now) .. '","datacontenttype":"application/json","data":' .. data .. '}')
end
