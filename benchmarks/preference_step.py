"""A step of DPO and one of a reward model: time, and memory above what the imports take, beside TRL's.

    python -m benchmarks.preference_step            each side on 1 and on 2 threads, 5 rounds
    python -m benchmarks.preference_step --rounds 1 --steps 6

The model: 4 layers of 128, 4 heads, a vocabulary of 512, float32, the same weights on both sides, and the same new head
where it judges. A step: the same 32 pairs of answers on both sides, all 32 held in memory at once, prompts of 16
tokens, answers of 8 to 64, one step of AdamW. DPO (beta 0.1) asks the reference, which is what the model was, at every
step on both sides. A round counts only where both sides' losses were the same. The time is the median of the steps
after the first three, and a side's figure in a round is that of its better number of threads; memory is the process's
peak less what it was when all was imported, the larger of the two. Ours is the loop of a run, with its metrics; theirs
that of their trainer, without logs and saving.
"""

import argparse
import json
import statistics
import tempfile
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.common import Failed, Results, Row, Work, markdown, measure, parser, require_peers
from benchmarks.generation import model
from benchmarks.steps import PLAIN, START, WARM, WORDS, Numbers, both_sides, of_a_run, peak, two_rows

NAME = "preference_step"
CASES = {"dpo": "a DPO step, with a reference", "reward_model": "a step of a reward model"}
TIME, MEMORY = (0.8, 0.6), (0.8, 0.6)
STEPS = 20
"""What is asked, and the aim."""
SHAPE = {**WORDS, "pairs": 512, "prompt": 16, "shortest": 8, "longest": 64, "batch": 32}
SETTINGS = {"beta": 0.1, "center_rewards_coefficient": 0.01, "learning_rate": 1e-4, "max_grad_norm": 1.0}
CLOSE = 1e-3
"""By how much the sides' mean losses may differ: they add in other orders."""


def pairs(count: int = SHAPE["pairs"], seed: int = 1) -> list[dict[str, list[int]]]:
    """Prompts that begin with the start, and two answers to each that end with end-of-text."""
    random = Random(seed)

    def answer() -> list[int]:
        length = random.randint(SHAPE["shortest"], SHAPE["longest"])
        return [*(random.randrange(PLAIN) for _ in range(length - 1)), WORDS["eos_id"]]

    prompts = [[START, *(random.randrange(PLAIN) for _ in range(SHAPE["prompt"] - 1))] for _ in range(count)]
    return [{"prompt": prompt, "chosen": answer(), "rejected": answer()} for prompt in prompts]


def told(case: str, steps: int) -> dict[str, Any]:
    """What the other side is to do: the pairs in the order in which a run of ours draws them, and the new head."""
    from torchward.algorithms.reward_model import Config
    from torchward.data.preferences import Shuffled
    from torchward.data.random import derive, seeded
    from torchward.nets.reward_model import RewardModel

    there, seed = pairs(), Config().seed
    drawn = Shuffled(len(there), SHAPE["batch"], derive(seed, "pairs" if case == "dpo" else "pairs 0"), "")
    begun = model()
    with seeded(seed, "reward model"):
        head: Any = RewardModel.of(begun, {}).heads[0].weight
    return {
        **SHAPE, **SETTINGS, "case": case, "steps": steps, "warm": WARM, "head": head.tolist(),
        "drawn": [there[number] for _ in range(steps) for number in drawn.next()],
    }  # fmt: skip


def task() -> Any:
    """The pairs as a run of ours has them; others are held out."""
    from torchward.language.documents import Document, Preference
    from torchward.language.rewards import exact_match
    from torchward.language.task import Problems
    from torchward.language.text_task import Text

    def text(ids: list[int]) -> str:
        return " ".join(map(str, ids))

    train, test = (
        [
            Document(Preference(text(pair["prompt"][1:]), text(pair["chosen"][:-1]), text(pair["rejected"][:-1])), "")
            for pair in side
        ]
        for side in (pairs(), pairs(SHAPE["batch"], seed=2))
    )
    return Text(Problems("step", train, test, exact_match), Numbers())  # type: ignore[arg-type]


def ours(case: str, threads: int, steps: int) -> dict[str, Any]:
    """Torchward's measurement, in this process. The moments are those of the run's own lines of metrics."""
    import torch

    from torchward.algorithms import dpo, reward_model
    from torchward.metrics import read_metrics
    from torchward.nets.language_model import LanguageModel
    from torchward.run import Run, RunOptions

    torch.set_num_threads(threads)
    before = peak()
    same: Any = {
        "total_timesteps": steps * SHAPE["batch"], "per_device_train_batch_size": SHAPE["batch"], "warmup_ratio": 0.0,
        "learning_rate": SETTINGS["learning_rate"], "lr_scheduler_type": "constant",
        "max_grad_norm": SETTINGS["max_grad_norm"],
    }  # fmt: skip
    options = RunOptions(eval_freq=-1, checkpoint_freq=-1, tensorboard=False, progress=False)
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "run", options, total=same["total_timesteps"], manifest={"algorithm": case})
        policy = LanguageModel(model(), {})
        if case == "dpo":
            dpo.train(dpo.Config(loss=dpo.DPO(SETTINGS["beta"]), **same), task(), run, policy)
        else:
            centre = SETTINGS["center_rewards_coefficient"]
            reward_model.train(reward_model.Config(center_rewards_coefficient=centre, **same), task(), run, policy)
        losses = [row["loss"] for row in read_metrics(run.path)]
        found = of_a_run(run.path, before, torch.get_num_threads())
        return {**found, "loss": statistics.fmean(losses), "first_loss": losses[0]}


def one_round(case: str, number: int, steps: int) -> dict[str, Any]:
    """Both sides, on 1 and on 2 threads. Raises Failed where they did not compute the same."""
    from torchward.language import hub

    with tempfile.TemporaryDirectory() as directory:
        hub.save(model(), Path(directory))
        file = Path(directory) / "told.json"
        file.write_text(json.dumps(told(case, steps)))
        mine = [f"benchmarks.{NAME}", f"--case={case}", f"--steps={steps}"]
        return agreed(both_sides(mine, "trl_preferences", [f"--model={directory}", f"--told={file}"]))


def agreed(found: dict[str, Any]) -> dict[str, Any]:
    """What was found. Raises Failed where the sides' losses over all steps, or the numbers of steps, differ."""
    losses, steps = ([one[what] for side in ("ours", "trl") for one in found[side]] for what in ("loss", "steps"))
    if max(losses) - min(losses) > CLOSE or len(set(steps)) > 1:
        raise Failed(f"expected the same steps and the same mean loss on both sides, got {steps} and {losses}")
    return found


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results, found = Results(NAME, *([directory] if directory else [])), []
    for case, what in CASES.items():
        there = [one for number in range(100) if (one := results.read(key(case, number), settings(case))) is not None]
        shape = f"{SHAPE['batch']} pairs of answers of {SHAPE['shortest']} to {SHAPE['longest']} tokens"
        found += two_rows(f"{what}, {shape}, against TRL's", there, TIME, MEMORY, f"python -m benchmarks.{NAME}")
    return found


def settings(case: str, steps: int = STEPS) -> dict[str, Any]:
    return {**SHAPE, **SETTINGS, "case": case, "steps": steps}


def key(case: str, number: int) -> str:
    return f"{case.replace('_', '-')}-{number:02d}"


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=STEPS)
    options.add_argument("--case", choices=CASES, default="dpo", help=argparse.SUPPRESS)
    options.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.ours:
        print(json.dumps(ours(given.case, given.threads, given.steps)))
        return
    if given.table:
        print(markdown(rows(given.results)))
        return
    require_peers()
    results = Results(NAME, given.results)
    if given.fresh:
        results.clear()
    works = [
        Work(
            key(case, number), settings(case, given.steps), partial(one_round, case, number, given.steps),
            lambda result: f"{result['ratio']:.2f} x the time, {result['memory']:.2f} x the memory",
        )
        for number in range(given.rounds)
        for case in CASES
    ]  # fmt: skip
    measure(results, works)
    print(markdown(rows(given.results)))


if __name__ == "__main__":
    main()
