"""An informer's copy: whatever lists, events and own writes come in whatever order, the newest news wins."""

import copy
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from allocator.backends.informer import Copy, Held

NAMES = ("a", "b", "c")


@dataclass
class World:
    """The API server: objects with versions, and everything that ever happened."""

    version: int = 0
    objects: dict[str, Held[int]] = field(default_factory=dict)
    events: list[tuple[str, str, Held[int]]] = field(default_factory=list)

    def write(self, name: str) -> Held[int]:
        self.version += 1
        held = Held(self.version, self.version)
        self.objects[name] = held
        self.events.append(("MODIFIED", name, held))
        return held

    def delete(self, name: str) -> None:
        if (held := self.objects.pop(name, None)) is not None:
            self.version += 1
            self.events.append(("DELETED", name, Held(held.value, self.version)))


class CopyMachine(RuleBasedStateMachine):
    """A watch that is behind, lists in between, and answers to our own writes that come at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.world, self.copy = World(), Copy[int]()
        self.cursor = 0
        self.answers: list[tuple[str, Held[int]]] = []

    @rule(name=st.sampled_from(NAMES), ours=st.booleans())
    def write(self, name: str, ours: bool) -> None:
        held = self.world.write(name)
        if ours:
            self.answers.append((name, held))

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        self.world.delete(name)

    @rule()
    def hear_one(self) -> None:
        self._hear(1)

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        if self.answers:
            self.copy.put(*self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1))))

    @rule()
    def list_now(self) -> None:
        self.copy.replace(dict(self.world.objects), self.world.version)

    @invariant()
    def once_everything_is_heard_it_is_the_truth(self) -> None:
        """However far behind the watch is: played to its end, the copy is the world."""
        trial = copy.deepcopy(self.copy)
        for kind, name, held in self.world.events[self.cursor :]:
            _apply(trial, kind, name, held)
        for name, held in self.answers:
            trial.put(name, held)
        found = {name: trial.get(name) for name in NAMES}
        truth = {name: held.value for name, held in self.world.objects.items()}
        assert found == {name: truth.get(name) for name in NAMES}

    def _hear(self, count: int) -> None:
        for kind, name, held in self.world.events[self.cursor : self.cursor + count]:
            _apply(self.copy, kind, name, held)
            self.cursor += 1


def _apply(to: Copy[int], kind: str, name: str, held: Held[int]) -> None:
    if kind == "DELETED":
        to.remove(name, held.version)
    else:
        to.put(name, held)
    to.version = max(to.version, held.version)


TestCopy = CopyMachine.TestCase
TestCopy.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_older_news_never_undo_newer(versions: list[int]) -> None:
    """Of one object's states, in any order, the newest stays."""
    held: Copy[int] = Copy()
    for version in versions:
        held.put("a", Held(version, version))
    assert held.get("a") == max(versions)


def test_what_another_way_told_holds_until_something_newer_comes() -> None:
    """An allocation by gRPC is in the copy before the watch says so; the watch's own word replaces it."""
    held: Copy[str] = Copy()
    held.put("a", Held("Ready", 5))
    held.amend("a", "Allocated")
    held.put("a", Held("Ready", 4))
    assert held.get("a") == "Allocated"
    held.put("a", Held("Allocated, labelled", 6))
    assert held.get("a") == "Allocated, labelled"
