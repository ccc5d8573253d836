"""
netcode 1.02: secure connections over UDP, without I/O.

Owns the packets, tokens and state machines of https://github.com/mas-bandwidth/netcode (STANDARD.md, IMPLEMENTERS.md); refuses to own
sockets (`gameserver/transports/udp.py`, `gameserver/client/udp.py`), clocks and what the payloads mean. It speaks to every conforming
implementation.

Theory of operation. The matchmaker and the game servers share a private key. For a player, the matchmaker makes a connect token
(`tokens.issue_connect_token`): a public part with two fresh packet keys and the servers' addresses, and a private part, encrypted with the shared
key, that says the same to the server. The client sends the private part in a connection request; the server answers with a challenge that
only the holder of the packet keys, at that address, can send back; then the client has a slot. From there on both sides send payloads,
or keep-alives where there is nothing to say. Every packet but the first is encrypted with its sequence number as nonce.

Both `server.NetcodeServer` and `client.NetcodeClient` are used alike: `receive(data, address, now_s)` for each datagram, which never raises;
`next_event()` until it is None; `data_to_send(now_s)`, a list of (address, datagram), after every call and at `next_timer_s()`. `now_s` is monotonic.
"""
