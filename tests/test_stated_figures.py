"""The figures that the pages state are those that the benchmarks recorded.

Each function of :data:`SECTIONS` computes figures from files of ``benchmarks``, and yields the
words of a page with these figures in them. The words have to stand in the page, and a number that
stands there in no such words fails as well. Whoever writes a new section adds a function here.
"""

from __future__ import annotations

import csv
import inspect
import itertools
import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import limits as rules_of_thumb
import live
import pytest
import replay
import rivals
import speed
import tables
import transfer

from optuna_shape.families import resnet

ROOT = Path(__file__).parent.parent
README, RESULTS, LIMITS = "README.md", "benchmarks/RESULTS.md", "benchmarks/LIMITS.md"
NAMES = {
    "digits-resnet": "digits",
    "fashion-mnist-resnet": "Fashion-MNIST",
    "cifar10-small-resnet": "CIFAR-10",
    "digits-densenet": "digits (DenseNet)",
    "fashion-mnist-vit": "Fashion-MNIST (transformer)",
}
#: Those that were recorded when what decides was finished.
LATER = list(NAMES)[2:]
SMALL = list(NAMES)[3:]

TASKS = {
    "accuracy": "accuracy",
    "accuracy, limited": "accuracy within latency and size",
    "latency": "latency at an accuracy",
    "size": "size at an accuracy",
}

Words = Iterator[tuple[str, str]]
Rows = list[dict[str, str]]


# What is recorded.


def rows(name: str) -> Rows:
    with (ROOT / "benchmarks" / "results" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def figures(name: str) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of a summary by part and name."""
    return {(row["part"], row["name"]): row for row in rows(name)}


def provenance(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())


def made_by(what: dict, *packages: str) -> str:
    """Versions, such as ``torch 2.15.0, optuna 5.0.0``."""
    return ", ".join(f"{p} {what['versions'][p.lower()].partition('+')[0]}" for p in packages)


def made(name: str, *packages: str) -> str:
    """Versions and date, such as ``torch 2.15.0, optuna 5.0.0, 2026-11-21``."""
    what = provenance(f"results/{name}")
    return f"{made_by(what, *packages)}, {what['date']}"


@cache
def recorded() -> dict[str, replay.Table]:
    found = replay.read_tables(ROOT / "benchmarks" / "tables" / f"{name}.csv" for name in NAMES)
    return {table.name: table for table in found}


# How it is written.


def two(value: float) -> str:
    """Two digits, such as 0.34, 1.0, 26 or 180."""
    rounded = float(f"{value:.1e}")
    return f"{rounded:.{max(0, 1 - math.floor(math.log10(rounded)))}f}"


def percent(value: str | float) -> str:
    """Two digits, such as ``1.0 %`` or ``26 %``."""
    return f"{two(100 * float(value))} %"


def span(values: Iterable[float], form: Callable[[float], str]) -> str:
    """Least and largest, such as ``1.6 to 2.5``."""
    known = list(values)
    return f"{form(min(known))} to {form(max(known))}"


def with_ends(row: dict[str, str]) -> list[str]:
    """Of a row of a summary its value, the lower and the upper end."""
    return [two(float(row[name])) for name in ("value", "low", "high")]


def listed(parts: Iterable[str]) -> str:
    """Such as ``a, b and c``."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


# The sections.


def exhaustive_search() -> Words:
    known = rows("exhaustive-digits")
    whole = {r["seed"]: float(r["seconds"]) for r in known if r["method"] != "ShapeSampler"}
    taken = {(r["method"], r["seed"]): float(r["seconds"]) / whole[r["seed"]] for r in known}
    for row in known:
        share, best, regret = (float(row[k]) for k in ("cost_share", "best_accuracy", "regret"))
        assert row["cut"] == "0", "the page says that nothing is cut short"
        counts = " | ".join(row[name] for name in ("method", "seed", "trained", "epochs"))
        time = taken[row["method"], row["seed"]]
        yield RESULTS, f"| {counts} | {share:.1%} | {time:.1%} | {best:.2%} | {regret:.2%} |"
    ours = [row for row in known if row["method"] == "ShapeSampler"]
    times = span((1 / float(row["cost_share"]) for row in ours), two)
    shapes = len(resnet(input_shape=(1, 12, 12), classes=10).shapes)
    (feasible,) = {row["feasible"] for row in known}
    epochs = provenance("results/exhaustive-digits")["epochs"]
    yield RESULTS, f"{feasible} of {shapes} shapes feasible, {epochs} epochs, nothing cut short"
    versions = made("exhaustive-digits", "Python", "torch", "optuna", "botorch")
    yield RESULTS, f"(2 cores, shared), {versions}"
    faster = span((1 / share for (method, _), share in taken.items() if method[0] == "S"), two)
    yield RESULTS, f"{faster} times less time than training everything"
    yield RESULTS, f"and {times} times less by FLOPs"
    lost = 100 * max(float(row["regret"]) for row in ours)
    yield README, f"takes {faster} times as long as ours until it stops"
    yield README, f"({times} times the FLOPs)"
    yield README, f"an answer that is at most {lost:.2f} points better"


def recorded_tables() -> Words:
    versions, spreads = set(), []
    for table, name in NAMES.items():
        what = provenance(f"tables/{table}")
        versions.add(made_by(what, "Python", "torch"))
        assert (what["device"], what["threads"]) == ("AMD EPYC", 1), "the page says so"
        trainings = tables.read(ROOT / "benchmarks" / "tables" / f"{table}.csv")
        seeds = len({training.seed for training in trainings})
        minutes = sum(training.seconds for training in trainings) / 60
        seconds = defaultdict(list)
        for training in trainings:
            seconds[training.shape].append(training.seconds)
        spreads.append([max(own) / min(own) for own in seconds.values()])
        command = what["command"].removeprefix("python benchmarks/exhaustive.py ")
        options = command.replace(f"--record benchmarks/tables/{table}.csv ", "")
        cells = [
            f"{name}, `{table}`",
            f"{len(recorded()[table].shapes)} x {seeds}",
            f"{minutes:.0f} min",
            what["date"],
            f"`{options}`",
        ]
        yield RESULTS, f"| {' | '.join(cells)} |"
    middle, most = span(map(statistics.median, spreads), two), max(map(max, spreads))
    yield RESULTS, f"the slowest of three seeds takes {middle} times as long as the fastest"
    yield RESULTS, f"in the median over shapes, and up to {two(most)} times"
    transformers = recorded()["fashion-mnist-vit"]
    means = 100 * transformers.finals.mean(axis=1)
    yield RESULTS, f"they reach {means.min():.0f} to {means.max():.0f} % (means of the seeds)"
    best = [
        max(mean for shape, mean in zip(transformers.shapes, means) if shape.depth == depth)
        for depth in (min(transformers.depths), max(transformers.depths))
    ]
    assert max(best) - min(best) < 0.1, "the page says as much"
    yield RESULTS, f"as much with one block as with {max(transformers.depths)}"
    (both,) = versions
    yield RESULTS, f"one thread of an AMD EPYC (2 cores, shared), {both}"


def until_the_best(suffix: str) -> Iterator[tuple[str, str, dict[str, dict[str, str]]]]:
    """Table, task, and of each method what it costs to train a best shape, in one unit."""
    known = figures("replay-summary")
    part = f"share of exhaustive until the best{suffix}"
    for table, task in itertools.product(NAMES, TASKS):
        keys = {method: (part, f"{table}, {task}: {method}") for method in replay.METHODS}
        yield table, task, {method: known[key] for method, key in keys.items()}


def best_rival(first: dict[str, dict[str, str]]) -> str:
    return min(rivals.NAMES, key=lambda name: float(first[name]["value"]))


def rule_of(task: str) -> str:
    return "largest" if task.startswith("accuracy") else "cheapest first"


def out_of(row: dict[str, str]) -> str:
    """Of ``12 of 50; more`` the first number."""
    return row["detail"].partition(" ")[0]


def other_searches() -> Words:
    known, rules, ours = figures("replay-summary"), figures("limits"), replay.UNPRUNED
    shares, level = [], defaultdict(list)
    for table, task, first in until_the_best(", seconds"):
        rival, part = best_rival(first), f"{ours}: stop, {table}, {task}"
        stop = known[part, "share of exhaustive, seconds"]["value"]
        shares.append((table, float(stop)))
        rule = f"{table}, {task}, {rule_of(task)}"
        taken, good = rules[rule, "share of exhaustive, seconds"]["value"], rules[rule, "good"]
        as_good = int(out_of(good)) >= int(out_of(known[part, "good answers"]))
        level[task].append(as_good and float(taken) <= float(stop))
        cells = [
            percent(first[ours]["value"]),
            f"{percent(first[rival]['value'])} {rival}",
            percent(stop),
            out_of(known[part, "good answers"]),
            percent(taken),
            out_of(good),
        ]
        yield README, f"| {NAMES[table]}, {TASKS[task]} | {' | '.join(cells)} |"
        for method, row in first.items():
            seeds = replay.SLOW_SEEDS if method in rivals.SLOW else replay.FAST_SEEDS
            assert row["detail"].partition(",")[0] == f"n {seeds}", (method, row)
    goals = [
        [won for task in own for won in level[task]] for own in (list(TASKS)[:2], list(TASKS)[2:])
    ]
    yield (
        README,
        f"In {sum(map(sum, goals))} of these {sum(map(len, goals))} rows the rule of thumb takes "
        "less time than the search until its stop, for at least as many good answers: "
        f"{sum(goals[0])} of the {len(goals[0])} for accuracy, {sum(goals[1])} of the "
        f"{len(goals[1])} for latency and size",
    )
    yield LIMITS, f"In {sum(goals[0])} of these {len(goals[0])} rows it is as good"
    yield README, f"good answers of {replay.FAST_SEEDS}"
    yield RESULTS, f"and {replay.FAST_SEEDS} of them are far from {replay.FAST_SEEDS} experiments"
    yield RESULTS, f"wrong stops of {replay.FAST_SEEDS}"
    yield LIMITS, f"good answers of {replay.FAST_SEEDS}"
    yield README, f"medians over {replay.FAST_SEEDS} orders of the three seeds"
    yield README, f"{replay.SLOW_SEEDS} for the Gaussian-process rivals"
    large, small = (
        span((share for table, share in shares if (table in SMALL) == is_small), percent)
        for is_small in (False, True)
    )
    yield README, f"{large} of the time that training every residual network takes"
    yield README, f"but after {small} in the smaller spaces"
    for table, found in recorded().items():
        what = provenance(f"tables/{table}")
        yield README, f"({len(found.shapes)} shapes, {found.epochs} epochs"
        if not table.startswith("digits"):
            size = 14 if table.startswith("fashion") else 16  # As the data sets are documented.
            images = f"{what['training_images']:,} training images of {size}x{size}"
            yield README, f"{found.epochs} epochs; {images}"

    part = f"{ours}: cost until the best to a rival's, seconds"
    mean, low, high = with_ends(known[part, "best of them"])
    yield README, f"takes {mean} of the time of the best rival on each task"
    yield README, f"(geometric mean, {low} to {high}"
    for table in LATER:
        mean, low, high = with_ends(known[part, f"best of them, {table}"])
        yield README, f"on {NAMES[table]} {mean}, {low} to {high}"
    what = provenance("results/replay-summary")
    yield README, made_by(what, "optuna-integration")
    yield README, f"and Ax {what['versions']['ax-platform']}"
    yield (
        README,
        f"AMD EPYC (2 cores, shared), {made('replay-summary', 'torch', 'optuna', 'botorch')}",
    )


def other_searches_by_flops() -> Words:
    known, ours = figures("replay-summary"), replay.UNPRUNED

    def quartiles(row: dict[str, str]) -> str:
        low, high = (two(100 * float(row[name])) for name in ("low", "high"))
        return f"{percent(row['value'])} ({low}-{high})"

    for table, task, first in until_the_best(""):
        rival, part = best_rival(first), f"{ours}: stop, {table}, {task}"
        cells = [
            quartiles(first[ours]),
            f"{quartiles(first[rival])} {rival}",
            quartiles(known[part, "share of exhaustive"]),
            out_of(known[part, "wrong stops, delta 0.05"]),
        ]
        for seeds in ("held-out seeds", "all seeds"):
            reaching = known.get((part, f"answers that reach the accuracy, by {seeds}"))
            cells.append("" if reaching is None else out_of(reaching))
        yield RESULTS, f"| {NAMES[table]}, {TASKS[task]} | {' | '.join(cells)} |"
    part = f"{ours}: cost until the best to a rival's"
    best, oracle = known[part, "best of them"], known["ratio to the oracle until the best", ours]
    for row, words in (
        (oracle, "costs {} times what an oracle pays that trains nothing else ({} to {})"),
        (best, "{} of the best rival on each task ({} to {})"),
    ):
        yield RESULTS, words.format(*with_ends(row))
    mean, low, high = with_ends(known["ratio to the oracle until the best, seconds", ours])
    yield RESULTS, f"(by time {mean}, {low} to {high})"
    means = [two(float(known[part, f"best of them, {table}"]["value"])) for table in SMALL]
    yield RESULTS, f"{means[0]} of the best rival on DenseNets and {means[1]} on transformers"
    versions = made("replay-summary", "torch", "optuna", "botorch")
    yield RESULTS, f"AMD EPYC (2 cores, shared), {versions}"


def stops() -> Words:
    known = figures("replay-summary")
    ours = replay.UNPRUNED
    for table, name in NAMES.items():
        part = f"{ours}: stop, {table}, all tasks"
        wrong = known[part, "wrong stops, delta 0.05"]["detail"]
        good = known[part, "good answers"]["detail"]
        yield RESULTS, f"{name}: {wrong} stops wrong, {good} answers good"
    everywhere = f"{ours}: stop, all tasks"
    plain = known[everywhere, "wrong stops, against the plain maximum"]["detail"]
    yield RESULTS, f"against the plain maximum, which errs the other way: {plain}"
    total, goals, surely, errors = 0, [], [], []
    for table, found in recorded().items():
        part = f"{ours}: stop, {table}, accuracy"
        total += int(out_of(known[part, "wrong stops, delta 0.05"]))
        if out_of(known[part, "wrong stops, delta 0.05"]) != "0":
            wrong = known[part, "wrong stops, delta 0.05"]["detail"]
            goals.append(f"{wrong} on {NAMES[table]}")
            surely.append(out_of(known[part, "wrong stops, by more than a standard error"]))
            errors.append(f"{found.noise / math.sqrt(found.finals.shape[1] - 1):.4f}")
    wrong = f"{total} of {replay.FAST_SEEDS * len(NAMES)} in all, where at most 5 % are promised"
    yield README, f"For the accuracy goal, wrong were {listed(goals)}, {wrong}"
    yield README, f"by more than a standard error {listed(surely)}"
    yield (
        RESULTS,
        f"For the accuracy goal, wrong are {listed(goals)} ({listed(surely)} beyond one standard "
        f"error), {wrong}",
    )
    many = [
        f"{known[part, 'wrong stops, against the plain maximum']['detail']} on {NAMES[table]}"
        for table in ("fashion-mnist-resnet", "cifar10-small-resnet")
        for part in [f"{ours}: stop, {table}, accuracy"]
    ]
    yield RESULTS, f"of them {listed(many)} for the accuracy goal"
    yield RESULTS, f"standard error of the truth, {listed(errors)}, is nearly `epsilon` or more"

    for bin_, words in (
        (
            "0.6 to 0.8",
            "for accuracy goals an untrained shape was better in {} where {} is stated",
        ),
        ("0.8 to 0.95", "and in {} where {} is"),
        (
            "0.01 to 0.05",
            "on which stops rest, are too small: in {} where {} is stated, in {} by more than a "
            "standard error",
        ),
        (
            "0.05 to 0.1",
            "from 0.05 to 0.1 in {} where {} is stated, in {} by more than a standard error",
        ),
    ):
        row = known[f"calibration of {ours}: accuracy goals", f"stated {bin_}"]
        stated = row["detail"].removeprefix("stated ").split(",")[0]
        shares = [f"{100 * float(share):.0f} %" for share in (row["value"], stated, row["low"])]
        yield RESULTS, words.format(*shares)

    held, by_all = (
        known[everywhere, f"answers that reach the accuracy, by {seeds}"]
        for seeds in ("held-out seeds", "all seeds")
    )
    reached = [f"{100 * float(row['value']):.0f} %" for row in (held, by_all)]
    said = f"{100 * float(held['detail'].split('stated ')[1]):.0f} %"
    yield (
        README,
        f"{reached[0]} by the seeds held out, in {reached[1]} by all, where {said} is stated",
    )
    yield (
        RESULTS,
        f"in {reached[0]} by the seeds held out and in {reached[1]} by all seeds, where {said} is "
        "stated",
    )

    def reaching(table: str) -> float:
        part = f"{ours}: stop, {table}, all tasks"
        return float(known[part, "answers that reach the accuracy, by held-out seeds"]["value"])

    assert min(NAMES, key=reaching) == "fashion-mnist-vit", "the page says that it is the worst"
    part = f"{ours}: stop, fashion-mnist-vit, all tasks"
    held, by_all = (
        known[part, f"answers that reach the accuracy, by {seeds}"]
        for seeds in ("held-out seeds", "all seeds")
    )
    worst = [100 * float(value) for value in (held["value"], by_all["value"])]
    said = 100 * float(held["detail"].split("stated ")[1])
    yield (
        RESULTS,
        f"Worst are the transformers, with {worst[0]:.0f} and {worst[1]:.0f} % where {said:.0f} % "
        "is stated",
    )


def pruning() -> Words:
    known = figures("replay-summary")
    spent: dict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
    for row in rows("replay"):
        if row["method"] in (replay.OURS, replay.UNPRUNED) and row["task"].startswith("accuracy"):
            steps = [replay.Step.parse(text) for text in row["steps"].split()]
            cost = replay.spent(recorded()[row["table"]], steps[: int(row["stop"])])[-1]
            spent[row["table"], row["task"], row["seed"]][row["method"]] = cost
    gains = {}
    for table in NAMES:
        own = [costs for key, costs in spent.items() if key[0] == table]
        ratios = (costs[replay.OURS] / costs[replay.UNPRUNED] for costs in own)
        gains[table] = 1 - replay.geometric_mean(ratios)
    part = "pruning, accuracy goals"
    saved = 1 - float(known[part, "cost until the stop, to that without"]["value"])
    killed = known[part, "answers killed: cut, and none good trained"]["detail"]
    less, more = (
        listed(
            f"{percent(abs(g))} on {NAMES[table]}" for table, g in gains.items() if g * sign > 0
        )
        for sign in (1, -1)
    )
    yield (
        RESULTS,
        f"saves {percent(saved)} of the cost until the stop on accuracy goals (it takes off "
        f"{less}, and adds {more}) and lost {killed} answers",
    )


def live_searches() -> Words:
    known, settings = figures("live-summary"), provenance("results/live")
    seeds = sorted({int(row["seed"]) for row in rows("live")})
    assert seeds == list(range(3, 8)), "the page says five seeds"
    methods = [live.LABELS.get(method, method) for method in live.METHODS]
    ours, *rivals = methods
    points = [f"{budget:.0%}" for budget in settings["budgets"]]
    budgets = [point.replace("%", " %") for point in points]
    limited, fast = settings["tasks"]
    # In points of accuracy, and in % of the latency.
    digits = {limited["name"]: 1, fast["name"]: 0}
    short = dict(zip(digits, ("accuracy", "latency")))

    def row_of(task: str, at: str, method: str, name: str) -> dict[str, str]:
        row = known[f"{task}, at {at}", f"{method}: {name}"]
        assert row["detail"] == f"n {len(seeds)}", f"{method} lacks seeds of {task}"
        return row

    def lacks(task: str, value: str) -> str:
        if math.isinf(float(value)):
            return "none"
        # That nothing becomes -0.
        return f"{round(100 * float(value), digits[task]) + 0.0:.{digits[task]}f}"

    def spread(task: str, at: str, method: str) -> str:
        row = row_of(task, at, method, "behind")
        middle, low, high = (lacks(task, row[name]) for name in ("value", "low", "high"))
        return f"{middle} ({low} to {high})"

    def cost_of_stop(task: str) -> str:
        row = row_of(task, live.STOP, ours, "cost_share")
        middle, low, high = (two(100 * float(row[name])) for name in ("value", "low", "high"))
        return f"cost {middle} % ({low} to {high})"

    yield (
        RESULTS,
        f"{fast['feasible']} residual networks on the digits, {settings['epochs']} epochs, seeds "
        f"{seeds[0]} to {seeds[-1]}",
    )
    with (ROOT / "benchmarks" / "results" / "live-shapes.csv").open(newline="") as file:
        largest = max(csv.DictReader(file), key=lambda row: int(row["size"]))
    for name, bound in limited["bounds"].items():
        assert bound == pytest.approx(float(largest[name]) / 2), "the page says half"
    yield RESULTS, f"half of the largest network's ({limited['feasible']} networks are)"
    yield RESULTS, f"lowest latency at {100 * fast['threshold']:g} % of accuracy"
    paid = {
        (task, method): 100 * float(row_of(task, points[0], method, "cost_share")["value"])
        for task in digits
        for method in methods
    }
    own = " and ".join(two(paid[task, ours]) for task in digits)
    others = span((cost for (_, method), cost in paid.items() if method != ours), two)
    yield README, f"At a budget of {budgets[0]} of the cost of training everything"
    yield README, f"ours has paid {own} %, the others {others} %"
    begun = span(
        (
            float(row_of(task, points[0], method, "trainings")["value"])
            for task in digits
            for method in rivals
        ),
        "{:.0f}".format,
    )
    yield README, f"where the rivals have trained {begun} networks"
    yield RESULTS, f"at {budgets[0]} {ours} has paid {own} %, the rivals {others} %"
    table = recorded()["digits-resnet"]
    seeds_of_table = table.finals.shape[1]
    assert seeds_of_table == 3, "the page says three seeds"
    yield RESULTS, f"{200 * table.noise / math.sqrt(seeds_of_table):.2f} points"

    first, *more = budgets
    heads = [" | ".join([f"{short[task]}: {first}", *more]) for task in digits]
    yield RESULTS, f"| search | {' | '.join(heads)} |"
    for method in methods:
        cells = [spread(task, at, method) for task in digits for at in points]
        yield RESULTS, f"| {method} | {' | '.join(cells)} |"
    cells = [f"{spread(task, live.STOP, ours)} | {cost_of_stop(task)} |" for task in digits]
    yield RESULTS, f"| {ours}, at its stop | {' | '.join(cells)} |"

    verdicts = []
    for task in digits:
        for at in points:
            values = {method: row_of(task, at, method, "behind")["value"] for method in methods}
            best = min(rivals, key=lambda method: float(values[method]))
            own, other = lacks(task, values[ours]), lacks(task, values[best])
            ahead = float(values[ours]) < float(values[best])
            verdicts.append((at, "level" if own == other else "less" if ahead else "more"))
    ahead_at = [at for at, verdict in verdicts if verdict == "less"]
    assert ahead_at == [points[0]] * len(digits), "README says at the first budget alone"
    less, level, more = (
        [v for _, v in verdicts].count(name) for name in ("less", "level", "more")
    )
    assert not more, "README says that it is level with the best at the others"
    yield (
        RESULTS,
        f"Of the {len(verdicts)} medians at a budget {ours} lacks less than every rival in "
        f"{less}, as much as the best of them in {level}, and more in {more}.",
    )
    versions = made("live", "Python", "torch", "optuna", "ax-platform")
    yield RESULTS, f"(2 cores, shared), {versions}"


def deciding() -> Words:
    taken: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in rows("overhead"):
        seconds = sum(float(row[name]) for name in ("suggest", "report", "stop"))
        taken[row["method"], row["shapes"], row["reports"]].append(1000 * seconds)
    late = {case: statistics.median(values[-10:]) for case, values in taken.items()}

    def both(method: str) -> str:
        return f"{two(late[method, '144', '0'])} and {two(late[method, '2000', '0'])} ms"

    ours = [late["ShapeSampler", *case] for case in (("144", "0"), ("144", "20"), ("2000", "0"))]
    yield (
        RESULTS,
        f"together take {two(ours[0])} ms with 144 shapes and "
        f"{len(taken['ShapeSampler', '144', '0']) - 1} trials, {two(ours[1])} ms with 20 reports "
        f"per trial, and {ours[2] / 1000:.1f} s with 2,000 shapes; GPSampler {both('GPSampler')}, "
        f"BoTorchSampler {both('BoTorchSampler')}",
    )
    yield RESULTS, f"(2 cores, shared), {made('overhead', 'torch', 'optuna', 'botorch')}"


def speed_of_the_answer() -> Words:
    known = speed.read(speed.RESULTS / "speed.csv")
    source = provenance("results/speed")
    summary = {(int(row["batch_size"]), int(row["layers"])): row for row in rows("speed-summary")}
    searched = [row for row in known if row.batch_size == 128]
    depths = sorted({row.layers for row in searched})

    def ratio(row: dict[str, str], name: str = "ratio") -> str:
        low, high = (f"{float(row[f'{name}_{end}']):.1f}" for end in ("lowest", "highest"))
        return f"{float(row[name]):.1f} ({low} to {high})"

    def points(row: dict[str, str], name: str) -> str:
        return f"{100 * float(row[name]):+.2f}"

    for layers in depths:
        many, single = summary[128, layers], summary[1, layers]
        trainings = [row.trainings for row in searched if row.layers == layers]
        error = points(many, "test_difference_error").lstrip("+")
        cells = [
            *(ratio(many), ratio(many, "series"), ratio(many, "beyond_series"), ratio(single)),
            points(many, "validation_difference"),
            f"{points(many, 'test_difference')} ({error})",
            f"{many['trainings']} ({span(trainings, '{:.0f}'.format)})",
        ]
        yield RESULTS, f"| {layers} | {' | '.join(cells)} |"
    assert {row["seeds"] for row in summary.values()} == {"3"}, "the pages say three seeds"
    width, between = source["base_width"], f"{depths[0]} to {depths[-1]} layers"
    yield RESULTS, f"networks of {between}, all {width} channels wide"
    images = provenance("tables/fashion-mnist-resnet")["training_images"]
    yield RESULTS, f"{images:,} training images of 14x14, {source['epochs']} epochs"
    versions = made("speed", "Python", "torch", "optuna", "botorch")
    yield RESULTS, f"AMD EPYC (2 cores, shared), {versions} (`benchmarks/results/speed.csv`"

    means = [
        f"{100 * statistics.fmean(r.deep_validation for r in searched if r.layers == n):.1f}"
        for n in depths
    ]
    yield RESULTS, f"Depth beyond {depths[1]} layers hardly helps"
    yield RESULTS, f"reaches {', '.join(means[:-1])} and {means[-1]} % in validation"
    wide = sum(row.answer.endswith(f"x{width}") for row in searched)
    assert sum(row.answer == row.deep for row in searched) == 2, "the page says two of them"
    yield RESULTS, f"{wide} of {len(searched)} answers are as wide as the series"

    gains = {
        part: [answer - deep for deep, answer in (row.accuracies(part) for row in searched)]
        for part in ("validation", "test")
    }
    assert sum(gain > 0 for gain in gains["test"]) == 2, "the page says that two are better"
    yield RESULTS, f"{sum(gain < 0 for gain in gains['test'])} of {len(searched)} are worse on the"
    lost, won = -100 * statistics.fmean(gains["test"]), 100 * statistics.fmean(gains["validation"])
    yield (
        RESULTS,
        f"the mean of all {len(searched)} is {lost:.2f} points worse there, and {won:.2f} better "
        "in validation",
    )
    share, images = statistics.fmean(row.deep_test for row in searched), 2000
    error = 100 * math.sqrt(share * (1 - share) / images)
    yield RESULTS, f"accuracy on the {images:,} test images has one of {error:.1f}"

    most = max(searched, key=lambda row: row.ratio)
    assert most.deep_validation == min(row.deep_validation for row in searched)
    deep, answer = most.accuracies("test")
    yield (
        RESULTS,
        f"the largest ratio, {most.ratio:.1f}, is to the least accurate network of the series, "
        f"with {100 * most.deep_validation:.1f} %, and costs {100 * (deep - answer):.1f} points "
        "of the test",
    )
    deepest = summary[128, depths[-1]]
    low, high = (f"{float(deepest[name]):.1f}" for name in ("ratio_low", "ratio_high"))
    yield RESULTS, f"{depths[-1]} layers at batch 128 reaches from {low} to {high}"
    intervals = {(row["depth"], row["width"]): row for row in rows("speed-latencies")}
    later = {
        (row.seed, name): latency
        for row in searched
        for name, latency in ((row.deep, row.deep_latency), (row.answer, row.answer_latency))
    }
    outside = 0
    for (_, name), latency in later.items():
        before = intervals[tuple(name.split("x"))]
        outside += not float(before["latency_low"]) <= latency <= float(before["latency_high"])
    yield RESULTS, f"{outside} of {len(later)} latencies at the end lay outside"
    assert "no processor package" in source["energy"], "the page says that there was no counter"

    yield README, f"found a shape {ratio(deepest)} times as fast as {depths[-1]} layers"
    others = span((float(summary[128, n]["ratio"]) for n in depths[:-1]), "{:.1f}".format)
    yield README, f"for {depths[0]} to {depths[-2]} layers {others} times"
    yield (
        README,
        f"Of the {float(deepest['ratio']):.1f} the series itself gives "
        f"{float(deepest['series']):.1f} by a shallower network, and on the test the answer is "
        f"{-100 * float(deepest['test_difference']):.2f} points worse",
    )


def measuring() -> Words:
    known = figures("measuring-cpu")
    grid: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
    for row in rows("measuring-cpu-grid"):
        grid[int(row["depth"]), int(row["width"])][row["session"]] = float(row["latency"])
    depths, widths = zip(*grid)
    yield (
        RESULTS,
        f"on a grid of {len(grid)} real residual networks ({min(depths)} to {max(depths)} blocks "
        f"per stage, {min(widths)} to {max(widths)} channels, batch 1), one thread of an "
        f"otherwise quiet 2-core AMD EPYC, {made('measuring-cpu', 'torch')}",
    )

    verdicts = []
    for margin in ("5", "10", "20"):
        detail = known["planted", f"wrong verdicts at a true margin of {margin}%"]["detail"]
        numbers = re.match(r"(\d+) wrongly within, (\d+) .* of (\d+); (\d+) undecided", detail)
        assert numbers, detail
        verdicts.append(numbers.groups())
    within, over, shapes, undecided = zip(*verdicts)
    assert {*within, *over} == {"0"}, "README says that no verdict was wrong"
    assert len(set(shapes)) == 1
    assert provenance("results/measuring-cpu")["sessions"] == 2, "the page says two processes"
    yield RESULTS, "bounds 5 %, 10 % and 20 % from the truth, which is that of two other processes"
    yield (
        RESULTS,
        f"| 0 of {shapes[0]} each; undecided {', '.join(undecided[:2])} and {undecided[2]} |",
    )
    yield (
        README,
        f"on {len(grid)} real residual networks on two CPU cores no verdict was wrong that was "
        f"5 % or more from its limit, and {undecided[0]} of {shapes[0]} were undecided at 5 %, "
        f"{undecided[1]} at 10 %",
    )

    wrong = [
        known["boundary", f"false {side}, as a share of the grid"] for side in ("within", "over")
    ]
    numbers = [row["detail"].split(",")[0] for row in wrong]
    beyond = re.search(r"by ([\d.]+)%", wrong[0]["detail"])
    assert beyond
    yield RESULTS, f"| {numbers[0]} ({beyond[1]} % over the limit), {numbers[1]} |"
    time = known["boundary", "time of boundary mode, as a share of measuring everything"]
    seconds = re.findall(r"\[(\d+)\] s", time["detail"])
    most = known["boundary", "shapes measured, most"]["value"]
    yield (
        RESULTS,
        f"| {most} of {len(grid)}, {percent(time['value'])} ({seconds[0]} s, {seconds[1]} s) |",
    )

    median, tail = (
        100 * float(known["truth", f"A/A: {name}"]["value"])
        for name in ("deviation from the median of the sessions, median", "90th percentile")
    )
    yield RESULTS, f"median and 90th percentile | {median:.1f} %, {tail:.1f} % |"
    moved = max(abs(times["1"] / times["0"] - 1) for times in grid.values())
    yield RESULTS, f"the latency of some networks changed by up to {percent(moved)}"

    errors: dict[bool, list[float]] = defaultdict(list)
    calls = []
    for part, name in known:
        if part == "energy" and "200 us" not in name:
            errors["500 us" in name].append(100 * float(known[part, name]["value"]))
            calls.append(float(name.split()[2]))
    yield RESULTS, f"25 of every 100 ms: largest error, {span(calls, '{:g}'.format)} ms per call |"
    yield (
        RESULTS,
        f"| {max(errors[False]):.1f} %; {max(errors[True]):.1f} % if to read it takes 0.5 ms "
        "(target 1 %) |",
    )


def training() -> Words:
    share = {
        (row["data"], row["shape"], row["part"]): float(row["share"]) for row in rows("training")
    }

    def fall(part: str) -> str:
        own = [100 * value for (_, _, of), value in share.items() if of == part]
        return f"{max(own):.0f} to {min(own):.0f} %"

    yield (
        RESULTS,
        f"{percent(share['digits', '1x8', 'convolution'])} of the time at (1, 8) on the digits, "
        f"{percent(share['fashion-mnist', '6x16', 'convolution'])} at (6, 16) on Fashion-MNIST",
    )
    yield RESULTS, f"Python takes {fall('python')}, picking and varying images {fall('data')}"
    slowed = max(1 / value for (_, _, part), value in share.items() if part == "without profiler")
    yield RESULTS, f"the profiler slows by up to {two(slowed)} times"
    yield RESULTS, f"AMD EPYC, shared, {made('training', 'torch')}."


def real_workers() -> Words:
    seconds = {
        (row["workers"], row["repeat"]): float(row["seconds"]) for row in rows("throughput")
    }
    gains: dict[str, list[float]] = defaultdict(list)
    for (workers, repeat), taken in seconds.items():
        gains[workers].append(seconds["1", repeat] / taken)
    middle = {workers: two(statistics.median(values)) for workers, values in gains.items()}
    yield (
        RESULTS,
        f"cores {middle['2']} times as much as one process with both ({span(gains['2'], two)}, "
        f"three repeats), and four processes {middle['4']} times",
    )
    yield RESULTS, f"AMD EPYC, shared, {made('throughput', 'torch')})"
    yield (
        README,
        f"workers train {middle['2']} times as much as one process with both, four {middle['4']} "
        "times",
    )


def simulated_workers() -> Words:
    known = rows("workers")
    cells: dict[str, Rows] = defaultdict(list)
    for row in known:
        cells[row["workers"]].append(row)

    def cell(row: dict[str, str]) -> tuple[str, str, str]:
        return row["table"], row["task"], row["seed"]

    single = {cell(row): row for row in cells["1"]}
    middle = {}
    for workers, own in cells.items():
        gains = []
        for name, digits in (("until_good", 1), ("until_stop", 1), ("worker_time", 2)):
            values = [float(single[cell(row)][name]) / float(row[name]) for row in own]
            low, median, high = (f"{x:.{digits}f}" for x in statistics.quantiles(values, n=4))
            gains.append("1" if workers == "1" else f"{median} ({low}-{high})")
        middle[workers] = {
            name: statistics.median(float(row[name]) for row in own)
            for name in ("trainings", "suggest_ms", "requests")
        }
        trainings, ms, requests = middle[workers].values()
        yield (
            RESULTS,
            f"| {workers} | {' | '.join(gains)} | {trainings:g} | {ms:.0f} | {requests:.0f} |",
        )
    used = [recorded()[name] for name in dict.fromkeys(row["table"] for row in known)]
    sizes = {table.name: len(table.shapes) for table in used}
    shapes = " and ".join(map(str, sizes.values()))
    seeds = len({row["seed"] for row in known})
    yield RESULTS, f"({shapes} shapes, accuracy and latency goals, {seeds} seeds each;"
    yield RESULTS, f"One worker needs about {middle['1']['trainings']:.0f} trainings"
    trained = {
        workers: statistics.median(int(row["shapes"]) / sizes[row["table"]] for row in own)
        for workers, own in cells.items()
    }
    assert trained["64"] == 1, "the page says that 64 train all shapes"
    yield RESULTS, f"with 16 of them {percent(trained['16'])} of all shapes, with 64 all (medians)"
    requests = round(middle["1"]["requests"], -1)
    epochs = span((table.epochs for table in used), "{:.0f}".format)
    yield (
        RESULTS,
        f"some {requests:.0f} requests per trial, {epochs} of them the reports of epochs",
    )
    yield RESULTS, f"that is {100 * requests:,.0f} requests per round of trainings"


def output_heads() -> Words:
    found: dict[tuple[str, str, str], Rows] = defaultdict(list)
    for row in rows("heads-differences"):
        found[row["method"], row["against"], row["measure"]].append(row)

    def means(*key: str) -> list[float]:
        return [float(row["mean"]) for row in found[key]]

    heads = ("llr plain", "softmax plain")
    networks = {(row["family"], row["optimizer"]) for row in found[*heads, "gap"]}
    assert (len(networks), {row["seeds"] for row in found[*heads, "gap"]}) == (3, {"5"})
    yield (
        RESULTS,
        f"grow to {span(means(*heads, 'last_norm'), '{:.2f}'.format)} times those with softmax",
    )
    assert all(float(row["low"]) <= 0 <= float(row["high"]) for row in found[*heads, "accuracy"])
    less = span((-100 * gap for gap in means(*heads, "gap")), "{:.1f}".format)
    yield (
        RESULTS,
        f"Overfitting without decay is a little smaller with the LLR head, by {less} points of "
        "training less validation accuracy, and accuracy the same within its interval",
    )
    decays = [gap for h in ("llr", "softmax") for gap in means(f"{h} both", f"{h} plain", "gap")]
    less = span((-100 * gap for gap in decays), "{:.1f}".format)
    yield RESULTS, f"weight and group decay together take off {less} points, with either head"


def knowledge_transfer() -> Words:
    data = ("digits", "fashion-mnist")
    summary = {
        (row["data"], row["parent"], row["child"], row["method"]): row
        for name in data
        for row in rows(f"transfer-{name}-summary")
    }
    space = resnet(input_shape=(1, 12, 12), classes=10)

    def parameters(shape: str) -> int:
        model = space.build(transfer.read_shape(shape))
        return sum(parameter.numel() for parameter in model.parameters())

    reach = inspect.signature(transfer.transfer).parameters["reach"].default
    falls, gains = [], []
    for parent, child in dict.fromkeys(key[1:3] for key in summary):
        ratio = parameters(child) / parameters(parent)
        near = 1 / reach <= ratio <= reach
        cells = []
        for name in data:
            scratch, heir = (
                summary[name, parent, child, method] for method in ("scratch", "heir gentle")
            )
            gain, error = -100 * float(heir["worse"]), 100 * float(heir["noise"])
            fall = "never"
            if heir["epochs_to_goal"]:
                saved = 1 - int(heir["epochs_to_goal"]) / int(scratch["epochs_to_goal"])
                fall = f"{100 * saved:.0f} %"
                falls += [saved] if near else []
            gains += [gain] if near else []
            cells.append(f"{fall}, {gain:+.1f} ({error:.1f})")
        beyond = "" if near else f": {two(ratio)} times the parameters"
        yield RESULTS, f"| {parent}, {child}{beyond} | {' | '.join(cells)} |"
    seeds = [summary[name, "2x8", "2x12", "scratch"]["seeds"] for name in data]
    yield RESULTS, f"| digits, {seeds[0]} seeds | Fashion-MNIST, {seeds[1]} seeds |"
    yield RESULTS, f"(2 cores, shared), {made('transfer-digits', 'torch')}"
    yield (
        README,
        f"Near heirs need {span((100 * f for f in falls), '{:.0f}'.format)} % fewer epochs",
    )

    searches: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for row in rows("transfer-digits"):
        if row["part"] == "search":
            searches[row["seed"]][row["method"]] = row
    pairs = [(own["scratch"], own["transfer"]) for own in searches.values()]
    costs = span((100 * float(b["cost"]) / float(a["cost"]) for a, b in pairs), "{:.0f}".format)
    other = f"{sum(a['child'] != b['child'] for a, b in pairs)} of {len(pairs)}"
    yield README, f"whole search chose [another shape for {other} seeds]"
    yield LIMITS, f"{other} searches chose another shape"
    yield (
        RESULTS,
        f"cost {costs} % of one without transfer, but chose another shape for {other} seeds",
    )
    yield RESULTS, f"the up to {max(gains):.1f} points that they gain are more than the 0.5"


def compressed_networks() -> Words:
    budget = "20+30+10"
    known = [row for row in rows("compression-network") if row["budget"] == budget]
    found = {(r["network"], r["seed"], r["share"], r["step"]): r for r in known}
    seeds = sorted({row["seed"] for row in known})
    train, retrain, tune = (int(n) for n in budget.split("+"))
    yield RESULTS, f"({int(known[0]['plain_bytes']) / 1e3:.0f} kB)"
    yield RESULTS, f"is trained for {train} epochs, pruned and trained on for {retrain}"
    yield RESULTS, f"shared among 32 values and tuned for {tune}"
    yield RESULTS, f"trained for {train + retrain + tune}"
    ratios, worse = [], []
    for share in ("0.85", "0.9"):
        steps = [found["resnet", seed, share, "rounded"] for seed in seeds]
        ratios.append(statistics.median(float(row["ratio"]) for row in steps))
        cells = [f"{statistics.median(float(row['ratio']) for row in steps):.1f}"]
        for measure in ("accuracy", "test"):
            for than in ("trained", "longer"):
                gains = [
                    100
                    * (float(row[measure]) - float(found["resnet", seed, "0.0", than][measure]))
                    for seed, row in zip(seeds, steps)
                ]
                middle = statistics.median(gains)
                cells.append(f"{middle:+.1f} ({min(gains):+.1f} to {max(gains):+.1f})")
                worse += [-middle] if (measure, than) == ("accuracy", "longer") else []
        yield RESULTS, f"| {100 * float(share):.0f} % | {' | '.join(cells)} |"
    yield README, f"became {span(ratios, '{:.0f}'.format)} times smaller"
    yield README, f"{span(worse, '{:.1f}'.format)} points worse in validation"
    summary = {(r["network"], r["budget"], r["what"]): r for r in rows("compression-summary")}

    def seen(network: str, epochs: str, what: str) -> list[float]:
        row = summary[network, epochs, what]
        return [float(row[name]) for name in ("median", "least", "most")]

    middle, low, high = seen("resnet", budget, "ratio, no loss from the start")
    yield RESULTS, f"{middle:.0f} times ({low:.0f} to {high:.0f}; the authors of HAM: 18 times)"
    assert seen("resnet", budget, "ratio, no loss") == [1, 1, 1]
    middle, low, high = seen("vgg", "16+6+4", "dense ratio, no loss from the start")
    yield RESULTS, f"{middle:.0f} times smaller ({low:.0f} to {high:.0f}; VGG19's: 165)"
    whole = seen("vgg", "16+6+4", "ratio, no loss from the start")[0]
    yield RESULTS, f"and the whole network {whole:.0f} times"
    lost = [
        -100 * seen("resnet", budget, f"snapshot, accuracy at {s}")[0] for s in ("0.85", "0.9")
    ]
    yield RESULTS, f"{lost[0]:.1f} points less than retraining at 85 %, {lost[1]:.1f} at 90 %"
    saved = [100 * seen("resnet", budget, f"snapshot, seconds at {s}")[0] for s in ("0.85", "0.9")]
    yield RESULTS, f"for {span(saved, '{:.0f}'.format)} % of the time"
    yield RESULTS, f"(one thread of a shared AMD EPYC, {made('compression-network', 'torch')}"


def lossless_codes() -> Words:
    known = rows("compression-coding")
    assert {row["k"] for row in known} == {"32"}
    found = {(float(row["sparsity"]), row["format"]): row for row in known}
    sparsities = sorted({sparsity for sparsity, _ in found})
    codes = ("ham", "sham", "gaps", "ans", "zstd-19", "lzma")
    for sparsity in (0.0, 0.5, 0.9, 0.95, 0.99):
        cells = [f"{float(found[sparsity, code]['over_entropy']):.3f}" for code in codes]
        yield RESULTS, f"| {100 * sparsity:.0f} % | {' | '.join(cells)} |"
    for what in ("encode", "decode"):
        speeds = [
            two(statistics.median(float(found[s, code][what]) for s in sparsities))
            for code in codes
        ]
        yield RESULTS, f"| {what}, MB/s | {' | '.join(speeds)} |"
    most = {
        code: max(float(found[s, code]["over_entropy"]) - 1 for s in sparsities)
        for code in ("ans", "gaps")
    }
    yield RESULTS, f"ANS stays within {percent(most['ans'])} of it, and Huffman codes"
    yield RESULTS, f"values and gaps within {percent(most['gaps'])}, at every sparsity"
    ahead = [
        int(found[s, "sham"]["bytes"]) / int(found[s, "gaps"]["bytes"])
        for s in sparsities
        if s >= 0.9
    ]
    yield RESULTS, f"{span(ahead, '{:.2f}'.format)} times smaller than sHAM"
    for row in known:
        assert not row["bound"] or float(row["share"]) <= float(row["bound"]), row
    shape = {(row["rows"], row["columns"]) for row in known}
    yield RESULTS, f"matrix of {' x '.join(*shape)} Gaussian numbers"
    yield RESULTS, f"shared EPYC, {made('compression-coding', 'torch')}"


def products() -> Words:
    known = rows("compression-product")
    for sparsity in ("0.5", "0.9", "0.99"):
        cells = [
            span(
                (
                    float(row["ratio"])
                    for row in known
                    if row["sparsity"] == sparsity and row["format"] == code
                ),
                two,
            )
            for code in ("ham", "sham")
        ]
        yield RESULTS, f"| {100 * float(sparsity):.0f} % | {' | '.join(cells)} |"
    largest = [row for row in known if row["columns"] == "4096"]
    most = max(int(row["peak_bytes"]) for row in largest)
    (plain,) = {int(row["dense_bytes"]) for row in largest}
    yield (
        RESULTS,
        f"at most {two(most / 1e6)} MB beside the packed matrix, of {plain / 1e6:.0f} MB",
    )
    yield RESULTS, f"on a shared EPYC, {made('compression-product', 'torch')}"


def limits() -> Words:
    known = figures("limits")

    def share(table: str, task: str, rule: str) -> float:
        part = f"{table}, {task}, {rule}"
        return float(known[part, "share of exhaustive, seconds"]["value"])

    def good(table: str, task: str, rule: str) -> str:
        return out_of(known[f"{table}, {task}, {rule}", "good"])

    ours = "ShapeSampler"
    cheaper, dearer, scaled = [], [], []
    for (table, name), (task, words) in itertools.product(NAMES.items(), TASKS.items()):
        rule = rule_of(task)
        ratio = share(table, task, rule) / share(table, task, ours)
        (cheaper if rule == "largest" else dearer).append(ratio)
        if rule == "largest":
            scaled.append(good(table, task, "depth-scaled"))
        cells = [
            cell
            for who in (rule, ours, "random")
            for cell in (percent(share(table, task, who)), good(table, task, who))
        ]
        yield LIMITS, f"| {name}, {words} | {' | '.join(cells)} |"
    yield LIMITS, f"for {span(cheaper, two)} of the time that the search takes until it stops"
    yield LIMITS, f"takes {span(dearer, two)} times as long as the search"
    yield LIMITS, f"was good in {listed(scaled)} of 50"
    yield LIMITS, "50 replays each"

    searches = figures("replay-summary")
    part = f"{replay.UNPRUNED}: stop, all tasks"
    reach = {
        name: searches[part, f"answers that reach the accuracy, by {name}"]
        for name in ("held-out seeds", "all seeds")
    }
    held, every = (percent(row["value"]) for row in reach.values())
    stated = percent(reach["all seeds"]["detail"].rpartition("stated ")[2])
    yield LIMITS, f"held-out seeds in {held}, by all seeds in {every}, where {stated} is stated"
    middle = []
    for goals in ("accuracy goals", "cost goals"):
        known_part = f"calibration of {replay.UNPRUNED}: {goals}"
        middle.append(percent(searches[known_part, "stated 0.6 to 0.8"]["value"]))
    yield LIMITS, f"stated 60 to 80 % for a better shape, {middle[0]} had one (accuracy goals)"
    yield LIMITS, f"{middle[1]} (latency and size)"
    part = "pruning, accuracy goals"
    saving = searches[part, "cost until the stop, to that without"]["value"]
    lost = searches[part, "answers killed: cut, and none good trained"]["detail"]
    yield (
        LIMITS,
        f"It saves {percent(1 - float(saving))} on accuracy goals, and lost {lost} answers",
    )

    part = f"{replay.UNPRUNED}: cost until the best to a rival's, seconds"
    ratios = [searches[part, f"best of them, {table}"] for table in SMALL]
    sizes = " and ".join(
        f"{len(recorded()[table].shapes)} {name}"
        for table, name in zip(SMALL, ("DenseNets", "transformers"))
    )
    yield LIMITS, f"Of {sizes} that is a large part"
    means = " and ".join(two(float(row["value"])) for row in ratios)
    yield LIMITS, f"takes {means} of the time of the best rival on each task"
    yield LIMITS, f"at the worst {two(max(float(row['high']) for row in ratios))} times as long"
    longest = max(share(table, task, ours) for table in SMALL for task in TASKS)
    yield LIMITS, f"up to {percent(longest)} of the time of training everything"

    measured = figures("measuring-cpu")
    deviations = (
        percent(measured["truth", name]["value"])
        for name in (
            "A/A: deviation from the median of the sessions, median",
            "A/A: 90th percentile",
            "A/A: largest",
        )
    )
    low, high, most = deviations
    yield LIMITS, f"by {low} in the median, by {high} at the 90th percentile, by {most} at most"
    row = measured["planted", "wrong verdicts at a true margin of 5%"]["detail"]
    total, undecided = re.search(r"of (\d+); (\d+) undecided", row).groups()
    yield LIMITS, f"Within 5 % of a limit, {undecided} of {total} verdicts stay undecided"
    drift = "drift of 3 % either way: wrong verdicts"
    at, near = (
        measured["simulated", f"{drift} of one session, true margin {m}%"]["detail"]
        for m in (0, 1)
    )
    wrong = measured["simulated", f"{drift} in the end, true margin 1%"]["detail"]
    caught, rest = re.fullmatch(r"(\d+) of 120, (\d+) undecided", wrong).groups()
    yield (
        LIMITS,
        f"With a drift of 3 % either way (simulated), one session misjudges {at} networks",
    )
    yield LIMITS, f"and {near} that are 1 % from it"
    yield LIMITS, f"all but {caught} of the latter, and leaves {rest} undecided"
    steps = measured["truth", "steps in depth that make a network faster"]["detail"]
    few, by = re.fullmatch(r"(\d+ of \d+), by ([\d.]+)% at most", steps).groups()
    yield LIMITS, f"{few} steps in depth made a network faster, by up to {by} %"
    shapes = max(len(table.shapes) for table in recorded().values())
    yield LIMITS, f"Spaces of up to {shapes} shapes were replayed"
    most_shapes = max(int(row["shapes"]) for row in rows("overhead"))
    yield LIMITS, f"timed with up to {most_shapes:,} shapes"


def not_measured() -> Words:
    """Defaults, names, formats and the data: whatever is stated, not measured."""
    for words in (
        "(1 to 6 blocks per stage, 4 to 24 channels at first)",
        "the 1,797 real 8x8 images",
        "enlarged to 12x12",
        "the 400 digits for validation",
        "the 400 for the test",
        "are varied four times and stay fixed",
        "kB is 1000 B",
        "the measured shape of depth 9, width 16",
        "the *guard* (5 % on a CPU, 2 % on CUDA)",
        "never takes energy for 0.",
        "Liang et al. (2021)",
        "differ by at most three times",
        "for 70 % of the epochs at half the learning rate",
        "at most 0.2 percentage points lower",
        "measures up to 12 shapes in five processes",
        "the constraints of Optuna 5:",
        *(f"| {code} |" for code in (0, 1, 2, 3, 4, 5, 130)),  # Exit codes.
        "`--wait` minutes, 30 by default",
        "after a day, or five times the longest training",
        "(0.005 of accuracy, or 5 % of the cost, and 0.05)",
        "The original work reports up to five times less training",
        "ACM TACO 15(4):62, 2019",
    ):
        yield README, words
    for words in (
        "Training cost is epochs times FLOPs",
        "within the `epsilon` of 0.5 % that was asked for",
        "The original work reports up to five times less training",
        "Liang et al. (2021)",
        "differ by at most three times",
        "for 70 % of the epochs at half the learning rate",
        "of 2 blocks per stage and 16 channels",
        "2,000 validation images, and as many of the test, whose standard error is 0.7 points",
        "with 16, 6 and 4 epochs",
        "that share 32 values",
        "lowest latency at batch 128",
        "Only batch 128 was searched for; the ratios at batch 1 are of the same answers",
        "| ratio at batch 128 |",
        "| ratio at batch 1 |",
        "the original 4.22 times (on a GPU, batch 128)",
        "from 90 % on",
        "reduced to 16x16",
        "(learning rate 0.01, 12 epochs)",
        "zstd -19",
        "0 to 99 %",
        "of 4096 x 512 and 4096 x 4096, and batches of 1 and 16",
        "(the authors: 3 to 127 times)",
        "60 epochs: validation",
        "60 epochs: test",
        "Against 60 epochs",
    ):
        yield RESULTS, words


SECTIONS = (
    exhaustive_search,
    recorded_tables,
    other_searches,
    other_searches_by_flops,
    stops,
    pruning,
    live_searches,
    deciding,
    speed_of_the_answer,
    measuring,
    training,
    real_workers,
    simulated_workers,
    output_heads,
    knowledge_transfer,
    compressed_networks,
    lossless_codes,
    products,
    limits,
    not_measured,
)


# The pages.


@cache
def words_of(section: Callable[[], Words]) -> tuple[tuple[str, str], ...]:
    return tuple(section())


def spans(words: str, text: str) -> list[tuple[int, int]]:
    """Where words stand in a text, whatever its lines; not as a part of longer numbers."""
    pattern = r"\s+".join(map(re.escape, words.split()))
    found = re.finditer(rf"(?<![\d.,+-]){pattern}(?!\d|[.,]\d)", text)
    return [match.span() for match in found]


# Blocks and spans of code, addresses of links and a data set hold syntax and names.
CODE = re.compile(r"```.*?```|`[^`]+`|\]\([^)]*\)|CIFAR-10", re.DOTALL)
NUMBER = re.compile(
    r"(?<![A-Za-z\d])\d[\d.,]*|\b(?:twice|(?:two|three|four|five|six|eight|ten)\s+times)\b", re.I
)


def unexplained(text: str, known: Iterable[str]) -> list[str]:
    """Lines with numbers that stand in none of the words."""
    rest = text
    places = [match.span() for match in CODE.finditer(text)]
    for start, end in places + [place for words in known for place in spans(words, text)]:
        rest = rest[:start] + re.sub(r"\S", " ", text[start:end]) + rest[end:]
    found: dict[int, list[str]] = defaultdict(list)
    for match in NUMBER.finditer(rest):
        found[text.count("\n", 0, match.start())].append(match[0].rstrip(".,"))
    lines = text.splitlines()
    return [f"line {i + 1}, {', '.join(values)}: {lines[i]}" for i, values in found.items()]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_figures_stand_in_the_page(section: Callable[[], Words]) -> None:
    missing = [
        f"{page}: {words}"
        for page, words in words_of(section)
        if not spans(words, (ROOT / page).read_text())
    ]
    assert missing == [], "Correct the page, which does not say:\n" + "\n".join(missing)


@pytest.mark.parametrize("page", [README, RESULTS, LIMITS])
def test_every_figure_of_the_page_is_computed(page: str) -> None:
    known = [words for section in SECTIONS for where, words in words_of(section) if where == page]
    found = unexplained((ROOT / page).read_text(), known)
    assert found == [], (
        f"{page} has figures that nothing in tests/test_stated_figures.py computes. Let the "
        "function of their section compute them from a recorded file and yield their words; if "
        "nobody measured them, as they are defaults or names, add the words to not_measured:\n"
        + "\n".join(found)
    )


def live_answer(row: dict[str, str]) -> live.Row:
    texts = {name: row[name] for name in ("task", "method", "at", "answer")}
    counts = {name: int(row[name]) for name in ("seed", "trainings", "full")}
    reaches = row["reaches"] == "True" if row["reaches"] else None
    rest = row.keys() - texts.keys() - counts.keys() - {"reaches"}
    return live.Row(
        **texts, **counts, reaches=reaches, **{name: float(row[name]) for name in rest}
    )


def test_summaries_are_those_of_the_recorded_runs(tmp_path: Path) -> None:
    results = ROOT / "benchmarks" / "results"
    judged = replay.judge(replay.read_tables(), replay.read_runs(results / "replay.csv"))
    for name, found in (
        ("replay-summary", replay.summarise(judged)),
        ("limits", rules_of_thumb.figures(rules_of_thumb.outcomes(judged))),
        ("live-summary", live.summarise([live_answer(row) for row in rows("live")])),
    ):
        path = tmp_path / f"{name}.csv"
        replay.write_figures(path, found)
        with path.open(newline="") as file:
            again = list(csv.DictReader(file))
        assert len(again) == len(rows(name))
        for new, old in zip(again, rows(name)):
            assert [new[k] for k in ("part", "name")] == [old[k] for k in ("part", "name")]
            assert new["detail"] == old["detail"]
            for column in ("value", "low", "high"):
                values = [float(row[column] or math.nan) for row in (new, old)]
                assert values[0] == pytest.approx(values[1], rel=2e-3, nan_ok=True), new


def test_a_figure_without_source_is_found_with_its_line() -> None:
    text = "It takes 5\nms here, 15 ms there, 2; `n=3`, bfloat16.\n\nThree times, 1.5 ms here.\n"
    assert unexplained(text, ["takes 5 ms here", "5 ms here", "5 ms there"]) == [
        "line 2, 15, 2: ms here, 15 ms there, 2; `n=3`, bfloat16.",
        "line 4, Three times, 1.5: Three times, 1.5 ms here.",
    ]
