r"""One graph, learnt in four ways: by a table, by DQN, by PPO, and as text by a transformer.

    python -m benchmarks.random_walks                              all of it
    python -m benchmarks.random_walks --seeds 1 --method dqn ppo   a part of it
    python -m benchmarks.random_walks --figure                     draws what is there

A walk of few steps to the goal is to be found from each of 20 nodes. The table, DQN and PPO walk the graph as a world
of states, where only edges can be chosen. The transformer reads 1,000 random walks and then writes walks of its own,
edges or not, and is rewarded. From a shell:

    torchward train q_learning torchward/tasks/random_walks_env.py --env-kwargs '{"numbered": true}' \
        --total-timesteps 40000 --n-envs 8 --initial-q 1 --exploration-start 0.05 --exploration-end 0.05 \
        --learning-rate linear --learning-rate-start 1 --learning-rate-end 1
    torchward train dqn torchward/tasks/random_walks_env.py --total-timesteps 12000 --n-envs 16 --gradient-steps 16 \
        --batch-size 128 --learning-rate 1e-3 --target-update-interval 500 --learning-starts 1000 --net-arch 128 128
    torchward train ppo torchward/tasks/random_walks_env.py --total-timesteps 20000 --n-envs 32 --n-steps 32 \
        --n-epochs 6 --learning-rate 2e-3 --ent-coef 0.01
    torchward train pretrain random_walks --name walks
    torchward train grpo random_walks --init runs/walks

A seed is also that of the graph, the same one for all four. The last policy takes from every node the action or letter
that it likes best, until the goal or for as long as a walk may be. Its walks are judged by the task's own reward, the
path optimality: 1 for a shortest walk, less for each step more, 0 for one that does not get there or leaves the edges.
Steps are steps in the world, and of the transformer the tokens that it wrote; those that it read before, over all
epochs, are told beside them. The settings were chosen on the graphs 4, 5, 10 and 11, which are not among those here.
One thread a run.
"""

import shutil
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import MISSING, ROOT, RUNS, Results, Row, Work, child, conduct, options_of_runs, verdict
from benchmarks.defaults import interval
from torchward import launch
from torchward.config import to_json
from torchward.data.protocols import Evaluation
from torchward.envs.make import EnvOptions
from torchward.envs.task import Control
from torchward.metrics import read_metrics
from torchward.nets import saving
from torchward.run import Run
from torchward.tasks import find
from torchward.tasks.random_walks import GOAL, Graph, Options, PathOptimality, make_graph
from torchward.tasks.random_walks_env import Env

NAME = "random_walks"
TOLD = {
    "q_learning": "tabular Q-learning",
    "dqn": "DQN",
    "ppo": "PPO with an MLP",
    "transformer": "transformer with GRPO",
}
"""What is measured, and how it is called."""
WORLD: dict[str, dict[str, Any]] = {
    "q_learning": {
        "total_timesteps": 40_000, "n_envs": 8, "initial_q": 1.0, "exploration_start": 0.05, "exploration_end": 0.05,
        "learning_rate": "linear", "learning_rate_start": 1.0, "learning_rate_end": 1.0,
    },
    "dqn": {
        "total_timesteps": 12_000, "n_envs": 16, "gradient_steps": 16, "batch_size": 128, "learning_rate": 1e-3,
        "target_update_interval": 500, "learning_starts": 1_000, "net_arch": (128, 128),
    },
    "ppo": {
        "total_timesteps": 20_000, "n_envs": 32, "n_steps": 32, "n_epochs": 6, "learning_rate": 2e-3, "ent_coef": 0.01,
    },
}  # fmt: skip
"""What is not the default in the world of states: in 40,000 steps a table has tried all that it believes in."""
TEXT = ("pretrain", "grpo")
SEEDS, ASKED, LOOKS = 3, 0.95, 40
LEFT = 250
"""Where the chart begins, in steps."""


class EveryStart(Control):
    """The graph as a world of states, judged by one walk from each node."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(Env, EnvOptions(env_kwargs=kwargs))
        self.name, self.made = NAME, partial(Env, **kwargs)

    def evaluate(self, policy: Any, episodes: int, seed: int, deterministic: bool = True) -> Evaluation:
        """One walk from each node, whatever `episodes` are; `seed` is that of what is drawn."""
        walkers = [self.made() for _ in range(1, self.made().options.nodes)]
        seen = [walker.reset(options={"start": node})[0] for node, walker in enumerate(walkers, start=1)]
        on = list(range(len(walkers)))
        while on:
            actions, _ = policy.predict(np.stack(seen), deterministic=deterministic, seed=seed)
            steps = {i: walkers[i].step(actions[i]) for i in on}
            for i, step in steps.items():
                seen[i] = step[0]
            on = [i for i, step in steps.items() if not step[2]]
        walks = [walker.render() for walker in walkers]
        earned = PathOptimality(walkers[0].graph)([walk[0] for walk in walks], [walk[1:] for walk in walks])
        return Evaluation(earned, [len(walk) - 1 for walk in walks])


def at_random(graph: Graph) -> float:
    """The mean optimality, over all first nodes, of walks that take any edge with the same probability."""
    worth, nodes = 0.0, range(1, len(graph.edges))
    for start in nodes:
        at = {start: 1.0}
        for length in range(2, graph.longest + 1):
            after: dict[int, float] = {}
            for node, chance in at.items():
                for other in graph.edges[node]:
                    after[other] = after.get(other, 0.0) + chance / len(graph.edges[node])
            reached = after.pop(GOAL, 0.0)
            worth += reached * (graph.longest - length) / (graph.longest - graph.shortest[start])
            at = after
    return worth / len(nodes)


def settings(method: str) -> dict[str, Any]:
    """Everything that a run is made from but its seed."""
    if method in WORLD:
        start = launch.change_all(launch.defaults(find.algorithm(method), Env), WORLD[method])
        return {"config": to_json(start.config), "graph": to_json(Options())}
    starts = {name: launch.defaults(find.algorithm(name), NAME) for name in TEXT}
    return {name: {"config": to_json(start.config), "task": to_json(start.env)} for name, start in starts.items()}


def key(method: str, seed: int) -> str:
    return f"{method}-seed-{seed}"


def one(method: str, seed: int) -> dict[str, Any]:
    """A run in this process, judged from every node, now and then and at its end."""
    import torch

    torch.set_num_threads(1)
    before = time.process_time()
    if method in WORLD:
        world = EveryStart(numbered=method == "q_learning", data_seed=seed)
        run = trained(method, world, seed, **WORLD[method], eval_freq=WORLD[method]["total_timesteps"] // LOOKS)
        return judged(world, run, before, looks(run))
    words = find.task(NAME, Options(data_seed=seed)).task
    first = trained("pretrain", NAME, seed, data_seed=seed)
    words = words.using(saving.load(first.path, which="last"))
    imitated = judged(words, first, before, [])
    every = settings(method)["grpo"]["config"]["total_timesteps"] // LOOKS
    run = trained("grpo", NAME, seed, init=first.path, data_seed=seed, eval_freq=every)
    return {**judged(words, run, before, looks(run)), "imitated": imitated["optimality"], "read": first.step}


def trained(algorithm: str, task: Any, seed: int, **changes: Any) -> Run:
    """A run to its end."""
    path = RUNS / NAME / f"{algorithm}-{seed}"
    shutil.rmtree(path, ignore_errors=True)
    run = launch.train(
        algorithm, task, path=path, threads=1, tensorboard=False, progress=False, checkpoint_freq=-1, seed=seed,
        **changes,
    )  # fmt: skip
    if not (path / launch.RESULT).exists():
        raise SystemExit(130)  # a signal came
    return run


def looks(run: Run) -> list[list[float]]:
    """Steps, and the optimality then."""
    return [[row["step"], round(row["eval/return"], 5)] for row in read_metrics(run.path) if "eval/return" in row]


def judged(task: Any, run: Run, before: float, curve: list[list[float]]) -> dict[str, Any]:
    """The walks of the run's last policy from every node."""
    earned = task.evaluate(saving.load(run.path, which="last"), Options().nodes - 1, 0).returns
    worth = {"optimality": statistics.fmean(earned), "least": min(earned)}
    return {**worth, "steps": run.step, "seconds": round(time.process_time() - before, 2), "curve": curve}


def found(directory: Path | None, method: str) -> list[dict[str, Any]]:
    """The results of all seeds that are there."""
    results = Results(NAME, *([directory] if directory else []))
    there = [results.read(key(method, seed), settings(method)) for seed in range(SEEDS)]
    return [one for one in there if one is not None]


def arrival(result: dict[str, Any]) -> tuple[int, int]:
    """The steps of a run; and those after which it was never seen below what is asked for."""
    below = [i for i, (_, worth) in enumerate(result["curve"]) if worth < ASKED]
    later = result["curve"][below[-1] + 1 :] if below else result["curve"]
    return result["steps"], later[0][0] if later else result["steps"]


def rows(directory: Path | None = None) -> list[Row]:
    """The row of the table, from the raw data."""
    parts, least = [], list[float]()
    for method, says in TOLD.items():
        there = found(directory, method)
        scores = [one["optimality"] for one in there]
        if len(scores) < SEEDS:
            parts += [f"{says}: {len(scores)} of {SEEDS} seeds"] if scores else []
            continue
        middle, low, high = interval(scores)
        least.append(low)
        steps, since = (statistics.fmean(counts) for counts in zip(*map(arrival, there), strict=True))
        part = f"{says} {middle:.3f} [{low:.3f}, {high:.3f}] after {steps / 1e3:.0f} k steps"
        if method not in WORLD:
            read, begun = (statistics.fmean(one[name] for one in there) for name in ("read", "imitated"))
            part += f" and {read / 1e3:.0f} k read, which alone brought {begun:.3f}"
        parts.append(f"{part} ({ASKED} since {since / 1e3:.0f} k)")
    measured = "; ".join(parts) or MISSING
    if len(least) == len(TOLD):
        walked = statistics.fmean(at_random(make_graph(Options(data_seed=seed))) for seed in range(SEEDS))
        measured += f"; at random {walked:.3f}; {verdict(min(least) >= ASKED, False)}"
    what = f"random walks, path optimality from every node, IQM [95 %] of {SEEDS} graphs"
    return [Row(what, f"lower bound {ASKED} each", "", measured, f"python -m benchmarks.{NAME}")]


def figure(directory: Path | None = None) -> Path:
    """All seeds' optimality over steps of experience, in one chart."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn, axes = plt.subplots(figsize=(8.4, 4.0), layout="constrained")
    for number, (method, says) in enumerate(TOLD.items()):
        there, colour = found(directory, method), f"C{number}"
        for one in there:
            axes.plot(*zip(*one["curve"], strict=True), color=colour, linewidth=1.3, alpha=0.8)
        if there:
            axes.plot([], [], color=colour, label=says)
        if begun := [one["imitated"] for one in there if "imitated" in one]:
            axes.plot([LEFT] * len(begun), begun, "o", color=colour, clip_on=False, label="before: imitation alone")
    walked = statistics.fmean(at_random(make_graph(Options(data_seed=seed))) for seed in range(SEEDS))
    axes.axhline(1.0, color="black", linewidth=0.8, linestyle="--", label="shortest walks")
    axes.axhline(walked, color="black", linewidth=0.8, linestyle=":", label="random walks")
    axes.set(xscale="log", xlim=(LEFT, None), ylim=(-0.03, 1.05), ylabel="path optimality from every node")
    axes.set_xlabel("steps (of the transformer: tokens that it wrote)")
    drawn.legend(loc="outside right center", frameon=False)
    out = ROOT / "docs" / "images" / f"{NAME}.png"
    drawn.savefig(out, dpi=130)
    return out


def main() -> None:
    options = options_of_runs(NAME, __doc__ or "", SEEDS)
    options.add_argument("--method", nargs="+", choices=list(TOLD), default=list(TOLD))
    options.add_argument("--figure", action="store_true", help="draw what is there")
    given = options.parse_args()
    if given.figure:
        print(figure(given.results))
        return

    def process(method: str, seed: int) -> Callable[[], dict[str, Any]]:
        words = ["--one", "--method", method, "--seed", str(seed)]
        return partial(child, [sys.executable, "-m", f"benchmarks.{NAME}", *words], 1)

    def works() -> list[Work]:
        return [
            Work(
                key(method, seed), settings(method), process(method, seed),
                lambda result: f"{result['optimality']:.3f} after {result['steps']:,} steps",
            )
            for method in given.method
            for seed in range(given.seeds)
        ]  # fmt: skip

    conduct(given, NAME, rows, works, lambda: one(given.method[0], given.seed))


if __name__ == "__main__":
    main()
