"""
The matching process: one queue's pool, cycle after cycle, until standard input ends.

Started by `matching.worker` as `python -m matchmaker.matching.process`. Frames (`matching.wire`) on standard input: first {"queue"}, then one
{"now_s", "added", "removed"} for each cycle; each is answered on standard output. What else is printed goes to standard error, so that a match
function's `print` spoils no frame. With a match function the process has so much memory for it and the pool (`match_function_memory_bytes`), and is the
first that the kernel kills when the machine runs out: never the director for what a studio's function ate.
"""

import os
import resource
import sys
from pathlib import Path
from typing import Any

from matchmaker.evaluator import MatchFunctionError, propose_all
from matchmaker.matching.pool import Pool
from matchmaker.matching.wire import decode_queue, decode_tickets, frame, read_frame
from matchmaker.model import TicketId


def main() -> None:
    """Serve until standard input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    first = read_frame(requests.read)
    if first is None:
        return
    pool = Pool(decode_queue(first["queue"]))
    if pool.queue.match_function:
        _confine(pool.queue.match_function_memory_bytes)
    while (request := read_frame(requests.read)) is not None:
        replies.write(frame(_answer(pool, request)))
        replies.flush()


def _confine(memory_bytes: int) -> None:
    # Data: what is allocated; not the address space, of which numpy's libraries reserve far more than they use.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass  # a kernel without it, or /proc is not there


def _answer(pool: Pool, request: dict[str, Any]) -> dict[str, Any]:
    pool.change(decode_tickets(request["added"]), map(TicketId, request["removed"]))
    try:
        proposals, refused = propose_all(pool, request["now_s"])
    except MatchFunctionError as error:
        return {"error": str(error)}
    return {
        "refused": refused,
        "proposals": [
            [
                [[ticket.id for ticket in team] for team in proposal.teams],
                proposal.fleets,
                proposal.quality,
                dict(proposal.roles),
            ]
            for proposal in proposals
        ],
    }


if __name__ == "__main__":
    main()
