"""`warmfleet generate`: a synthetic trace, the same for the same seed."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fleets.cli.options import MISUSED, fail
from matchmaker.generator import Population, arrivals
from matchmaker.model import QueueName
from matchmaker.recording.trace import Arrival, TraceError, write_trace


def generate(
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    queue: Annotated[str, typer.Option(help="The queue that it is for.")] = "ranked",
    tickets_per_s: Annotated[float, typer.Option(min=0.001, max=100_000, help="On average over a day.")] = 10.0,
    hours: Annotated[float, typer.Option(min=0.001, max=24 * 60)] = 1.0,
    swing: Annotated[
        float, typer.Option(min=0, max=1, help="0: the same all day; 1: nobody at the lowest hour.")
    ] = 0.6,
    region: Annotated[list[str] | None, typer.Option(help="NAME:SHARE, as eu-west:40; by default four.")] = None,
    mode: Annotated[list[str] | None, typer.Option(help="Values of the attribute `mode`.")] = None,
    parties: Annotated[str, typer.Option(help="Shares of parties of 1, 2, … players.")] = "50,20,12,8,10",
    rating: Annotated[str, typer.Option(help="MEAN:DEVIATION of the attribute `rating`.")] = "1500:300",
    seed: Annotated[int, typer.Option(help="The same seed gives the same players.")] = 1,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a trace of players that do not exist: arrivals over the day, regions, parties, skill."""
    usual = Population()
    names, shares = _pairs(
        "--region", region or [f"{n}:{w:g}" for n, w in zip(usual.regions, usual.region_weights, strict=True)]
    )
    mean, deviation = _pairs("--rating", [rating])[0][0], _pairs("--rating", [rating])[1][0]
    population = Population(
        tickets_per_s=tickets_per_s,
        daily_swing=swing,
        party_weights=tuple(_number("--parties", part) for part in parties.split(",")),
        regions=tuple(names),
        region_weights=tuple(shares),
        modes=tuple(mode or usual.modes),
        rating=(_number("--rating", mean), deviation),
    )
    if sum(population.party_weights) <= 0 or sum(population.region_weights) <= 0:
        fail("--parties, --region: one share at least is above 0", MISUSED)
    rows = (Arrival(ticket=t) for t in arrivals(population, duration_s=hours * 3600, seed=seed, queue=queue))
    try:
        count = write_trace(out, QueueName(queue), rows)
    except (TraceError, OSError) as error:
        fail(str(error))
    print(json.dumps({"file": str(out), "tickets": count}) if json_output else f"{count} tickets are in {out}")


def _pairs(option: str, texts: list[str]) -> tuple[list[str], list[float]]:
    names, numbers = [], []
    for text in texts:
        name, colon, share = text.rpartition(":")
        if not colon or not name:
            fail(f"{option} {text}: two parts with a colon are wanted, as eu-west:40 or 1500:300", MISUSED)
        names.append(name)
        numbers.append(_number(option, share))
    return names, numbers


def _number(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        fail(f"{option} {text!r}: a number that is not negative is wanted", MISUSED)
    return value
