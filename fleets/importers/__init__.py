"""Queues of other matchmakers, as ours: FlexMatch rule sets, PlayFab queues, Unity Matchmaker queues."""
