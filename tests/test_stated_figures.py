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

import pytest
import replay
import tables
import transfer

from optuna_shape.families import resnet

ROOT = Path(__file__).parent.parent
README, RESULTS, LIMITS = "README.md", "benchmarks/RESULTS.md", "benchmarks/LIMITS.md"
NAMES = {"digits-resnet": "digits", "fashion-mnist-resnet": "Fashion-MNIST"}

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


def made(name: str, *packages: str) -> str:
    """Versions and date, such as ``torch 2.15.0, optuna 5.0.0, 2026-11-21``."""
    what = provenance(f"results/{name}")
    parts = [f"{p} {what['versions'][p.lower()].partition('+')[0]}" for p in packages]
    return ", ".join([*parts, what["date"]])


@cache
def recorded() -> dict[str, replay.Table]:
    found = {}
    for name in NAMES:
        table = replay.make_table(name, tables.read(replay.HERE / "tables" / f"{name}.csv"))
        assert isinstance(table, replay.Table), table
        found[name] = table
    return found


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


# The sections.


def exhaustive_search() -> Words:
    known = rows("exhaustive-digits")
    for row in known:
        share, best, regret = (float(row[k]) for k in ("cost_share", "best_accuracy", "regret"))
        assert row["cut"] == "0", "the page says that nothing is cut short"
        counts = " | ".join(row[name] for name in ("method", "seed", "trained", "epochs"))
        yield RESULTS, f"| {counts} | {share:.1%} | {best:.2%} | {regret:.2%} |"
    ours = [row for row in known if row["method"] == "ShapeSampler"]
    times = span((1 / float(row["cost_share"]) for row in ours), two)
    shapes = len(resnet(input_shape=(1, 12, 12), classes=10).shapes)
    (feasible,) = {row["feasible"] for row in known}
    epochs = provenance("results/exhaustive-digits")["epochs"]
    yield RESULTS, f"{feasible} of {shapes} shapes feasible, {epochs} epochs, nothing cut short"
    versions = made("exhaustive-digits", "Python", "torch", "optuna", "botorch")
    yield RESULTS, f"(2 cores, shared), {versions}"
    yield RESULTS, f"{times} times less than training everything"
    lost = 100 * max(float(row["regret"]) for row in ours)
    yield README, f"costs {times} times as much as ours until it stops"
    yield README, f"for an answer that is at most {lost:.2f} points better"


def other_searches() -> Words:
    known = figures("replay-summary")
    ours = replay.UNPRUNED
    shares: list[float] = []
    counts: dict[str, set[str]] = defaultdict(set)
    for table, name in NAMES.items():
        for task, words in TASKS.items():
            first = {
                method: known["share of exhaustive until the best", f"{table}, {task}: {method}"]
                for method in replay.METHODS
            }
            for method, row in first.items():
                counts[method].add(row["detail"])
            rivals = [method for method in first if method not in (ours, replay.OURS)]
            rival = min(rivals, key=lambda method: float(first[method]["value"]))
            part = f"{ours}: stop, {table}, {task}"
            stop = known[part, "share of exhaustive"]["value"]
            if task.startswith("accuracy"):
                shares.append(100 * float(stop))
            yield (
                README,
                f"| {name}, {words} | {percent(first[ours]['value'])} | "
                f"{percent(first[rival]['value'])} {rival} | {percent(stop)} | "
                f"{known[part, 'good answers']['detail']} |",
            )
    yield RESULTS, f"nothing better is left takes {span(shares, two)} % of exhaustive training"

    for method, found in counts.items():
        slow = method in ("GP", "GP + Median", "BoTorch", "Ax")
        assert found == {f"n {replay.SLOW_SEEDS if slow else replay.FAST_SEEDS}"}, method
    yield (
        README,
        f"medians over {replay.FAST_SEEDS} replays, {replay.SLOW_SEEDS} for the Gaussian-process "
        "rivals",
    )
    digits, fashion = recorded().values()
    images = provenance("tables/fashion-mnist-resnet")["training_images"]
    yield (
        README,
        f"{len(digits.shapes)} residual networks on the digits ({digits.epochs} epochs) and "
        f"{len(fashion.shapes)} on Fashion-MNIST ({images:,} training images of 14x14, "
        f"{fashion.epochs} epochs)",
    )

    best = known[f"{ours}: cost until the best to a rival's", "best of them"]
    mean, low, high = (two(float(best[name])) for name in ("value", "low", "high"))
    assert best["detail"].startswith("worst: fashion-mnist-resnet, accuracy, limited")
    assert round(float(best["high"])) == 2, "the pages say that Ax is twice as quick there"
    yield (
        README,
        f"for {mean} of what the best rival on each task pays (geometric mean, {low} to {high}: "
        f"on one task, over the {replay.SLOW_SEEDS} seeds that both ran, Ax is twice as quick",
    )
    yield RESULTS, f"{mean} of the best rival on each task ({low} to {high})"
    yield RESULTS, "On one task Ax is twice as quick"
    oracle = known["ratio to the oracle until the best", ours]
    mean, low, high = (two(float(oracle[name])) for name in ("value", "low", "high"))
    yield (
        RESULTS,
        f"costs {mean} times what an oracle pays that trains nothing else (geometric mean of the "
        f"tasks, {low} to {high})",
    )


def stops() -> Words:
    known = figures("replay-summary")
    ours, fashion = replay.UNPRUNED, recorded()["fashion-mnist-resnet"]
    everywhere = f"{ours}: stop, all tasks"
    all_wrong = known[everywhere, "wrong stops, delta 0.05"]["detail"]
    good = known[everywhere, "good answers"]["detail"]
    yield README, f"{all_wrong} stops were wrong, and {good} answers good"
    part = f"{ours}: stop, fashion-mnist-resnet, accuracy"
    wrong = known[part, "wrong stops, delta 0.05"]["detail"].split()[0]
    surely = known[part, "wrong stops, by more than a standard error"]["detail"].split()[0]
    yield (
        RESULTS,
        f"by the seeds held out: {all_wrong}, {wrong} of them on "
        f"Fashion-MNIST's accuracy goal ({surely} beyond one standard error)",
    )
    error = fashion.noise / math.sqrt(fashion.finals.shape[1] - 1)
    yield RESULTS, f"standard error of the truth, {error:.4f}, is nearly `epsilon`"
    yield RESULTS, f"its {known[part, 'good answers']['detail']} good answers"
    plain = known[everywhere, "wrong stops, against the plain maximum"]["detail"]
    yield RESULTS, f"which errs the other way, it is {plain}."

    for bin_, words in (
        (
            "0.6 to 0.8",
            "for accuracy goals an untrained shape was better in {} where {} is stated",
        ),
        (
            "0.05 to 0.1",
            "from 0.05 to 0.1 are too small: in {} where {} is stated, in {} by more than a "
            "standard error",
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
    yield README, f"{reached[0]} by these, in {reached[1]} by all seeds, where {said} is stated"
    yield (
        RESULTS,
        f"in {reached[0]} by the seeds held out and in {reached[1]} by all seeds, where {said} is "
        "stated",
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
    assert killed.startswith("0 of "), "the page says that none was lost"
    assert gains["fashion-mnist-resnet"] < 0, "the page says that it adds to the cost"
    yield (
        RESULTS,
        f"saves {percent(saved)} of the cost until the stop on accuracy goals "
        f"({percent(gains['digits-resnet'])} on the digits; on Fashion-MNIST it adds "
        f"{percent(-gains['fashion-mnist-resnet'])}) and lost none of "
        f"{killed.removeprefix('0 of ')} answers",
    )


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
    sizes = {name: len(table.shapes) for name, table in recorded().items()}
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
    epochs = span((table.epochs for table in recorded().values()), "{:.0f}".format)
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
        return float(known[f"{table}, {task}, {rule}", "share of exhaustive"]["value"])

    def good(table: str, task: str, rule: str) -> str:
        return known[f"{table}, {task}, {rule}", "good"]["detail"]

    ours = "ShapeSampler"
    saved, dearer, scaled = [], [], []
    for (table, name), (task, words) in itertools.product(NAMES.items(), TASKS.items()):
        rule = "largest" if task.startswith("accuracy") else "cheapest first"
        ratio = share(table, task, rule) / share(table, task, ours)
        (saved if rule == "largest" else dearer).append(ratio)
        if rule == "largest":
            scaled.append(good(table, task, "depth-scaled").partition(" ")[0])
        cells = [
            cell
            for who in (rule, ours)
            for cell in (percent(share(table, task, who)), good(table, task, who))
        ]
        last = good(table, task, "random")
        yield LIMITS, f"| {name}, {words} | {' | '.join(cells)} | {last} |"
    assert 0.25 < min(saved) < max(saved) < 0.4, "a quarter to two fifths"
    yield LIMITS, f"costs {span(dearer, two)} times as much as the search"
    yield LIMITS, f"was good in {', '.join(scaled[:-1])} and {scaled[-1]} of 50"
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
    saving = searches["pruning, accuracy goals", "cost until the stop, to that without"]["value"]
    yield LIMITS, f"It saves {percent(1 - float(saving))} on accuracy goals"
    yield LIMITS, "3 of 5 searches chose another shape"  # Computed for RESULTS.

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
        "optuna-integration 5.0.0, and Ax 1.3.1",
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
        "from 90 % on",
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
    other_searches,
    stops,
    pruning,
    deciding,
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


# Blocks and spans of code, and addresses of links, hold syntax and names.
CODE = re.compile(r"```.*?```|`[^`]+`|\]\([^)]*\)", re.DOTALL)
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


def test_a_figure_without_source_is_found_with_its_line() -> None:
    text = "It takes 5\nms here, 15 ms there, 2; `n=3`, bfloat16.\n\nThree times, 1.5 ms here.\n"
    assert unexplained(text, ["takes 5 ms here", "5 ms here", "5 ms there"]) == [
        "line 2, 15, 2: ms here, 15 ms there, 2; `n=3`, bfloat16.",
        "line 4, Three times, 1.5: Three times, 1.5 ms here.",
    ]
