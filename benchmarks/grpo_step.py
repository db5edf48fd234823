"""A step of GRPO: its time, and its memory above what the imports take, beside TRL's.

    python -m benchmarks.grpo_step                  each side on 1 and on 2 threads, 5 rounds
    python -m benchmarks.grpo_step --rounds 1 --steps 6

The model: 4 layers of 128, 4 heads, a vocabulary of 512, float32, the same weights on both sides. A step: 8 prompts of
16 tokens, 8 completions of each of at most 64 tokens, a cheap reward, the log-probabilities of a reference (beta 0.04),
one step of AdamW on all 64. The time is the median of the steps after the first three, and a side's figure in a round
is that of its better number of threads; memory is the process's peak less what it was when all was imported, the
larger of the two. Ours is the loop of a run, with its metrics; theirs that of their trainer, without logs, drawings and
saving.
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.common import Results, Row, Work, markdown, measure, parser, require_peers
from benchmarks.generation import model
from benchmarks.steps import PLAIN, WARM, WORDS, Numbers, both_sides, of_a_run, peak, two_rows

NAME = "grpo_step"
ASKED, AIM = 0.65, 0.5
ASKED_MEMORY = 0.5
SHAPE = {**WORDS, "completions": 64, "group": 8, "new": 64}
BETA = 0.04
PROMPT = 16


def prompts(count: int) -> list[list[int]]:
    random = Random(1)
    return [[random.randrange(PLAIN) for _ in range(PROMPT)] for _ in range(count)]


def told(steps: int) -> dict[str, Any]:
    return {**SHAPE, "beta": BETA, "prompts": prompts(64), "steps": steps, "warm": WARM}


def ours(threads: int, steps: int) -> dict[str, Any]:
    """Torchward's measurement, in this process. The moments are those of the run's own lines of metrics."""
    import torch

    from torchward.algorithms import grpo
    from torchward.language.documents import Document, Prompt
    from torchward.language.task import Problems
    from torchward.language.text_task import Text
    from torchward.nets.language_model import LanguageModel
    from torchward.run import Run, RunOptions

    torch.set_num_threads(threads)
    before = peak()

    def reward(prompts: Any, completions: Any, **_: Any) -> list[float]:
        return [float(len(set(completion.split()))) for completion in completions]

    # The start takes the first token's place, so that a prompt has as many tokens as on the other side.
    texts = [" ".join(map(str, ids[1:])) for ids in prompts(64)]
    documents = [Document(Prompt(text), str(number)) for number, text in enumerate(texts)]
    problems = Problems("step", documents, documents, reward, max_completion_length=SHAPE["new"])
    task = Text(problems, Numbers())  # type: ignore[arg-type]
    policy = LanguageModel(model(), {})
    config = grpo.Config(
        total_timesteps=steps * SHAPE["completions"] * SHAPE["new"], num_generations=SHAPE["group"],
        generation_batch_size=SHAPE["completions"], beta=BETA, learning_rate=1e-4,
    )  # fmt: skip
    options = RunOptions(eval_freq=-1, checkpoint_freq=-1, tensorboard=False, progress=False)
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "run", options, total=config.total_timesteps, manifest={"algorithm": "grpo"})
        grpo.train(config, task, run, policy)
        return of_a_run(run.path, before, torch.get_num_threads())


def one_round(number: int, steps: int) -> dict[str, Any]:
    """Both sides, on 1 and on 2 threads."""
    from torchward.language import hub

    with tempfile.TemporaryDirectory() as directory:
        hub.save(model(), Path(directory))
        file = Path(directory) / "told.json"
        file.write_text(json.dumps(told(steps)))
        theirs = [f"--model={directory}", f"--told={file}"]
        return both_sides([f"benchmarks.{NAME}", f"--steps={steps}"], "trl_grpo", theirs)


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results = Results(NAME, *([directory] if directory else []))
    there = [one for number in range(100) if (one := results.read(key(number), {**SHAPE, "beta": BETA})) is not None]
    what = "a GRPO step, 64 completions in groups of 8, up to 64 tokens, with a reference, against TRL's"
    memory = (ASKED_MEMORY, ASKED_MEMORY)
    return two_rows(what, there, (ASKED, AIM), memory, f"python -m benchmarks.{NAME}")


def key(number: int) -> str:
    return f"round-{number:02d}"


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=12)
    options.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.ours:
        print(json.dumps(ours(given.threads, given.steps)))
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
            key(number), {**SHAPE, "beta": BETA}, partial(one_round, number, given.steps),
            lambda result: f"{result['ratio']:.2f} x the time, {result['memory']:.2f} x the memory",
        )
        for number in range(given.rounds)
    ]  # fmt: skip
    measure(results, works)
    print(markdown(rows(given.results)))


if __name__ == "__main__":
    main()
