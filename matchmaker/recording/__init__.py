"""Ticket streams kept and tried again: traces, their recorder, replays, shadow queues."""
