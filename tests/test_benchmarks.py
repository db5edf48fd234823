"""The benchmarks' own arithmetic: what is counted, what stands in the table, and that the table is that of the data."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import (
    distillation,
    generation,
    gpu_language,
    gpu_pong,
    guess_number,
    language_speed,
    pong,
    preference_step,
    random_walks,
    replay,
    sac_update,
    steps,
    table,
    time_to_475,
    valid_python,
)
from benchmarks.common import Failed, Results, in_turn
from benchmarks.stages import key
from tests.language import letters
from torchward.language import hub
from torchward.language.documents import Document, Prompt
from torchward.language.text_task import Text
from torchward.nets.tabular import TabularPolicy
from torchward.nets.transformer import Transformer
from torchward.tasks import random_walks as walks


def test_the_readme_has_the_table_of_the_raw_data() -> None:
    text = table.README.read_text(encoding="utf-8")
    written = text.partition(table.BEGIN)[2].partition(table.END)[0].strip()
    assert written == table.table(), "`python -m benchmarks.table --write` brings it"


def test_the_table_has_every_benchmark() -> None:
    found = {path.stem for path in Path(table.__file__).parent.glob("*.py") if "def rows(" in path.read_text("utf-8")}
    assert set(table.BENCHMARKS) == found


def test_a_setting_that_came_later_and_is_off_changes_nothing_of_what_was_measured(tmp_path: Path) -> None:
    results = Results("some", tmp_path)
    results.write("one", {"config": {"steps": 3, "bf16": False}}, {"found": 1})
    assert results.read("one", {"config": {"steps": 3, "bf16": False, "torch_compile": False}}) == {"found": 1}
    for config in ({"steps": 3, "bf16": False, "torch_compile": True}, {"steps": 3}, {"steps": 4, "bf16": False}):
        assert results.read("one", {"config": config}) is None
    assert results.read("one", {"config": {"steps": 3, "bf16": False, "limit": None}}) is None


def test_processes_work_in_turn(tmp_path: Path) -> None:
    """Each is asked once in each turn, when the one before it has answered; one that ends is told of."""
    log = tmp_path / "log"
    program = (
        "import sys\nprint('{\"name\": 1}', flush=True)\nfor _ in sys.stdin:\n"
        f"    open({str(log)!r}, 'a').write(sys.argv[1])\n    print(0.5, flush=True)"
    )
    found = in_turn([[sys.executable, "-c", program, name] for name in "ab"], (1, 1), 3)
    assert found == [{"name": 1, "seconds": [0.5] * 3}] * 2 and log.read_text() == "ababab"
    with pytest.raises(Failed, match="ended with 3"):
        in_turn([[sys.executable, "-c", "raise SystemExit(3)"]], (1,), 1)


# Distillation


def test_the_share_of_a_gap_is_that_of_one_seed(tmp_path: Path) -> None:
    """A student alone counts by the better policy of its best rate; a seed without one, or a teacher, is left out."""
    results = Results(distillation.NAME, tmp_path)
    for stage, seed, last, best in (
        ("teacher", 0, 0.9, 0.95), ("alone", 0, 0.4, 0.5), ("distilled", 0, 0.8, 0.9), ("distilled", 1, 0.1, 0.1),
    ):  # fmt: skip
        found = {"right": {"last": last, "best": best}}
        for rate in distillation.ALONE if stage == "alone" else (None,):
            results.write(distillation.key(stage, seed, rate), distillation.settings(stage, rate), found)
            found = {"right": {"last": 0.1, "best": 0.2}}
    assert distillation.shares(tmp_path, "distilled") == [pytest.approx(0.75)]
    told = distillation.rows(tmp_path)[0].measured
    assert "its student alone 50.0%" in told and "closed by 75% [75%, 75%], 1 seeds" in told


# SAC's update


def test_the_work_of_an_update_is_what_pytorch_counts() -> None:
    learner, kept = sac_update.made(2000)
    with FlopCounterMode(display=False) as counter:
        learner.update(kept)
    counted = counter.get_total_flops()
    # By the actions alone the critics' gradient is less work, and an outer product is none of matrices.
    assert 0.985 * sac_update.operations() < counted <= sac_update.operations()


def test_a_measurement_of_an_update_has_its_profile(tmp_path: Path) -> None:
    setting = {"rows": 2000, "warm": 1, "blocks": 3, "updates": 1, "products": 1, "profiled": 2}
    found = sac_update.ours(1, setting)
    assert len(found["shares"]) == 3 and 0.0 < min(found["shares"]) <= found["share"] <= max(found["shares"])
    took = found["profile"]["microseconds"]
    assert tuple(took) == sac_update.KINDS and all(time > 0.0 or kind == "rest" for kind, time in took.items())
    calls = {name: number for name, (_, number) in found["profile"]["operations"].items()}
    assert calls["replay"] == 1.0, "once an update"

    results, whole = Results(sac_update.NAME, tmp_path), sac_update.settings()
    assert [row.measured for row in sac_update.rows(tmp_path)] == ["not measured yet"] * 2
    results.write(sac_update.key(1, 0), whole, {**found, "share": 0.65})
    results.write(sac_update.key(2, 0), sac_update.settings(**setting), found)
    one, two = sac_update.rows(tmp_path)
    assert one.measured.startswith("0.65 (0.65 to 0.65) in 1 processes") and "asked for is reached" in one.measured
    assert two.measured == "not measured yet", "of another setting"


def test_an_operation_is_a_part_of_what_is_around_it() -> None:
    def event(name: str, outer: Any = None) -> Any:
        return SimpleNamespace(name=name, cpu_parent=outer)

    drawing = event("replay")
    assert sac_update.kind_of(event("aten::mm")) == "products"
    assert sac_update.kind_of(event("aten::mul", event("aten::mm"))) == "elementwise"
    assert (
        sac_update.kind_of(drawing) == sac_update.kind_of(event("aten::copy_", event("aten::to", drawing))) == "replay"
    )
    assert sac_update.kind_of(event("aten::_foreach_lerp_")) == "optimisers"
    assert sac_update.kind_of(event("ProfilerStep")) == "rest"


# Training a language model


def test_the_work_of_a_training_step_is_what_pytorch_counts() -> None:
    """But for the half of attention that a causal mask forbids: 127 of 256 parts of what is counted there."""
    learner, rows = language_speed.made()
    with torch.device("meta"):
        model = Transformer(learner.policy.body.config)  # type: ignore[arg-type]
        tokens = torch.zeros(rows.tokens.shape, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model.logits(model(tokens)).sum().backward()
    attention = counter.get_flop_counts()["Global"][torch.ops.aten.bmm]
    assert counter.get_total_flops() - attention * 127 // 256 == language_speed.operations()


def test_a_measurement_of_training_becomes_four_rows(tmp_path: Path) -> None:
    found = language_speed.ours(1, {"warm": 1, "blocks": 2, "updates": 1, "products": 1})
    assert len(found["seconds"]) == 2 and found["share"] > 0.0 and found["tokens_per_second"] > 0.0
    results, whole = Results(language_speed.NAME, tmp_path), language_speed.settings()
    assert [row.measured for row in language_speed.rows(tmp_path)] == ["not measured yet"] * 4
    assert found["bare_share"] > 0.0
    theirs = [{**found, "tokens_per_second": 100.0}, {**found, "tokens_per_second": 90.0}]
    mine = [
        {**found, "tokens_per_second": 200.0, "share": 0.6, "bare_share": 0.9},
        {**found, "tokens_per_second": 150.0, "share": 0.4, "bare_share": 0.7},
    ]
    results.write(language_speed.key(0), whole, {"ours": mine, "transformers": theirs, "ratio": 1.6})
    speed, one, two, limit = language_speed.rows(tmp_path)
    assert (
        speed.measured.startswith("1.60 (1.60 to 1.60) x in 1 rounds") and "100 (100 to 100) tokens/s" in speed.measured
    )
    assert "asked for is reached" in one.measured and "**missed**" in two.measured
    assert "3.00 (3.00 to 3.00) x transformers is the limit" in limit.measured, "200 * 0.9 / 0.6 of 100"


# A language model on a GPU


def test_measurements_on_a_gpu_become_rows(tmp_path: Path) -> None:
    """What measures there measures here, a small model for a moment; shares are of what the same process did."""
    shape = {**gpu_language.SHAPES["small"], "hidden_size": 32, "layers": 2, "slots": 4, "new": 6, "rows": 2}
    setting = {"warm": 1, "blocks": 2, "updates": 1, "side": 64, "copied": 2**20, "repetitions": 2}
    trained = gpu_language.train(shape, "cpu", False, setting)
    written = gpu_language.decode(shape, "cpu", False, setting)
    assert all(found["share"] > 0.0 and found["tokens_per_second"] > 0.0 for found in (trained, written))
    results = Results(gpu_language.NAME, tmp_path)
    assert {row.measured for row in gpu_language.rows(tmp_path)} == {"not measured yet"}
    found = {"tokens_per_second": 1000.0, "share": 0.4, "machine": 800.0}
    more = {**found, "tokens_per_second": 1500.0, "share": 0.6}
    results.write("gpt-train", gpu_language.settings("gpt-train"), {"False": found, "True": more, "device": "one"})
    told = gpu_language.rows(tmp_path)[2].measured
    assert told == "1,000 tokens/s, 0.40 of 800 TFLOP/s; with torch_compile 1,500, 0.60; one"


def test_what_a_step_reads_is_its_weights_and_what_it_has_written() -> None:
    """Of 10 rows behind a prompt of 3, three steps: they see 4, 5 and 6 tokens of 2 layers' keys and values."""
    shape = {"hidden_size": 32, "layers": 2, "heads": 4, "vocab_size": 50, "rows": 1, "length": 8}
    learner, _ = language_speed.made(shape)
    policy: Any = learner.policy
    numbers = sum(x.numel() for x in policy.parameters()) - 256 * 32
    read = 4 * (numbers + 10 * 5 * 2 * 2 * 32)
    assert gpu_language.needed(policy, {**shape, "slots": 10, "prompt": 3, "new": 3}) == read


# Pong


TINY = (
    "--atari-img-height", "42", "--atari-img-width", "42", "--atari-max-frames", "40", "--atari-noop-max", "0",
    "--n-envs", "2", "--n-steps", "16", "--batch-size", "16", "--n-epochs", "1", "--total-timesteps", "288",
    "--log-freq", "32",
)  # fmt: skip


def test_pong_is_played_to_a_goal_and_becomes_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What measures on a GPU measures here: games that are cut after 10 steps have a return of 0 at most, so that one
    goal is reached with the first 20 episodes, and the other one never. What has ended is not played again."""
    pytest.importorskip("ale_py", reason="needs the extra atari")
    monkeypatch.setattr(pong, "RUNS", tmp_path)
    reached, not_reached = (gpu_pong.play("ppo", 0, goal, 5.0, 1, "cpu", TINY) for goal in (-20.0, 22.0))
    assert reached["reached"] and reached["steps"] < not_reached["steps"] == 288 and not not_reached["reached"]
    assert gpu_pong.play("ppo", 0, -20.0, 5.0, 1, "cpu", TINY) == reached
    results = Results(gpu_pong.NAME, tmp_path / "raw")
    assert [row.measured for row in gpu_pong.rows(tmp_path / "raw")] == ["not measured yet"] * 2
    found = {**reached, "steps_per_second": 2.5 * gpu_pong.LEANRL, "seconds": 90.0, "steps": 1_500_000}
    results.write("ppo-seed-0", gpu_pong.settings("ppo", gpu_pong.GOAL, "cuda"), found)
    assert gpu_pong.rows(tmp_path / "raw")[0].measured == (
        "1.5 min, 1.50 M steps, 17,022 steps/s (cpu); 2.50 x LeanRL's 6,809: aim reached"
    )


# A step of preferences


@pytest.mark.parametrize("case", preference_step.CASES)
def test_a_step_of_preferences_is_of_the_pairs_that_the_other_side_is_told(case: str, tmp_path: Path) -> None:
    """By transformers: what the first step costs where a new head judges, and that of DPO, which begins as the
    reference."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[hf]'")
    found, told = preference_step.ours(case, 1, 2), preference_step.told(case, 1)
    assert found["steps"] == 2 and found["peak_mb"] >= 0.0
    assert len(told["drawn"]) == 32 and {len(pair["prompt"]) for pair in told["drawn"]} == {16}
    if case == "dpo":
        assert found["first_loss"] == pytest.approx(math.log(2.0), abs=1e-5)
        return
    hub.save(generation.model(), tmp_path)
    judge: Any = transformers.GPT2ForSequenceClassification.from_pretrained(tmp_path, num_labels=1, pad_token_id=511)
    with torch.no_grad():
        judge.score.weight.copy_(torch.tensor(told["head"]))
        chosen, rejected = (
            torch.stack([judge(torch.tensor([pair["prompt"] + pair[side]])).logits[0, 0] for pair in told["drawn"]])
            for side in ("chosen", "rejected")
        )
    cost = (1 + (rejected - chosen).exp()).log() + told["center_rewards_coefficient"] * (chosen + rejected) ** 2
    assert float(cost.std()) > 0.01, "another pair is another cost"
    assert found["first_loss"] == pytest.approx(float(cost.mean()), abs=1e-4)


def test_steps_that_are_not_the_same_on_both_sides_do_not_count() -> None:
    def sides(loss: float, steps: int) -> dict[str, Any]:
        return {"ours": [{"loss": 0.7, "steps": 9}] * 2, "trl": [{"loss": loss, "steps": steps}] * 2}

    assert preference_step.agreed(sides(0.7002, 9)) == sides(0.7002, 9)
    for other in (sides(0.71, 9), sides(0.7, 8)):
        with pytest.raises(Failed, match="the same mean loss on both sides"):
            preference_step.agreed(other)


def test_a_round_of_steps_becomes_a_row_of_time_and_one_of_memory(tmp_path: Path) -> None:
    assert [row.measured for row in preference_step.rows(tmp_path)] == ["not measured yet"] * 4
    ours = [{"seconds": 0.6, "peak_mb": 150.0}, {"seconds": 0.5, "peak_mb": 160.0}]
    theirs = [{"seconds": 1.0, "peak_mb": 200.0}, {"seconds": 1.2, "peak_mb": 180.0}]
    result = {"ours": ours, "trl": theirs, "ratio": 0.5, "memory": 0.8}
    Results(preference_step.NAME, tmp_path).write(
        preference_step.key("dpo", 0), preference_step.settings("dpo"), result
    )
    time, memory, *others = preference_step.rows(tmp_path)
    assert time.measured.startswith("0.50 (0.50 to 0.50) x in 1 rounds: 0.50 (0.50 to 0.50) against 1.00 (")
    assert time.measured.endswith("aim reached") and (time.asked, time.aim) == ("0.8 x", "0.6 x")
    assert "160 (160 to 160) against 200 (200 to 200) MB; asked for is reached" in memory.measured
    assert [row.measured for row in others] == ["not measured yet"] * 2


def test_the_first_three_steps_do_not_count() -> None:
    moments = [0.0, 9.0, 18.0, 27.0, 28.0, 30.0, 33.0]
    assert steps.measured(moments, 6, steps.peak(), 1)["seconds"] == 2.0
    assert steps.measured(moments[1:], 6, steps.peak(), 1)["seconds"] == 2.0, "where the first one's begin is not known"


# Seconds to a return of 475


def test_a_seed_of_dqn_that_does_not_get_there_counts_with_the_cap(tmp_path: Path) -> None:
    results, setting = Results(time_to_475.NAME, tmp_path), time_to_475.settings_of_dqn()
    facts = {"mean_return": 480.0, "steps": 50_000, "training_seconds": 5.0, "wall_seconds": 9.0}
    fast = {**facts, "reached": True, "reached_seconds": 8.0}
    late = {**facts, "reached": False, "reached_seconds": 20.0, "mean_return": 300.0}
    assert time_to_475.charged(fast) == 8.0
    assert time_to_475.charged(late) == 80.0, "four times as many steps"
    assert time_to_475.charged({**late, "steps": 400_000}) == 20.0
    for seed in range(10):
        results.write(time_to_475.key(seed, "dqn"), setting, late if seed == 9 else fast)
    ppo, dqn = time_to_475.rows(tmp_path)
    assert ppo.measured == "not measured yet"
    assert dqn.measured.startswith("8.0 (8.0 to 80.0) s; seeds that get there: 9/10; after 50000")
    assert dqn.measured.endswith("aim reached")
    results.write(time_to_475.key(9, "dqn"), {**setting, "goal": 400.0}, fast)
    assert time_to_475.rows(tmp_path)[1].measured.endswith("**missed**"), "nine seeds are not ten"


@pytest.mark.slow
def test_a_process_says_when_it_got_there() -> None:
    found = time_to_475.ours("dqn", 0, 15.0, ("--total-timesteps=3000",))
    assert found["reached"] and found["mean_return"] >= 15.0
    assert 0.0 < found["training_seconds"] < found["reached_seconds"] < found["wall_seconds"]


# The replay of a million frames


def test_a_small_replay_is_measured_as_a_large_one(tmp_path: Path) -> None:
    setting = {**replay.settings(8000), "times": 20}
    found = replay.ours("prioritised", setting)
    assert 7000 < found["steps"] <= 8000, "final observations take rows too"
    assert found["gigabytes"] == pytest.approx(8000 * 84 * 84 / 1e9, rel=0.05)
    assert 0.0 < found["milliseconds"] <= found["milliseconds_99"]

    results = Results(replay.NAME, tmp_path)
    for kind in replay.KINDS:
        results.write(replay.key(kind, 0), replay.settings(), {**found, "gigabytes": 7.4, "milliseconds": 1.5})
    size, speed = replay.rows(tmp_path)
    assert "asked for is reached" in size.measured and size.asked == "7.5 GB"
    assert "**missed**" in speed.measured and speed.asked == "1 ms"


def test_a_result_is_read_with_its_own_settings_alone(tmp_path: Path) -> None:
    results = Results("some", tmp_path)
    results.write("a, b", {"n": (1, 2)}, {"x": 1})
    assert results.read("a, b", {"n": [1, 2]}) == {"x": 1}
    assert results.read("a, b", {"n": (1, 3)}) is None
    assert json.loads(next((tmp_path / "some").iterdir()).read_text())["machine"]["cores"] >= 1


# Random walks


def test_a_walk_at_random_is_worth_what_all_walks_are() -> None:
    graph = walks.Graph.of(((), (0, 2), (1, 3), (2, 0, 1)), 5)
    assert graph is not None and graph.shortest == (1, 2, 3, 2)

    def worth(walk: tuple[int, ...]) -> float:
        if walk[-1] == 0 or len(walk) == 5:
            return graph.optimality(walk)
        nexts = graph.edges[walk[-1]]
        return sum(worth((*walk, node)) for node in nexts) / len(nexts)

    assert random_walks.at_random(graph) == pytest.approx(sum(worth((node,)) for node in (1, 2, 3)) / 3)


def test_a_policy_walks_once_from_every_node_and_earns_what_its_text_would() -> None:
    options = walks.Options(nodes=9, edge_probability=0.2, longest=6, data_seed=1)
    graph, world = walks.make_graph(options), random_walks.EveryStart(numbered=True, **vars(options))
    policy = TabularPolicy.empty(world.observation_space, world.action_space)

    def take(node: int, other: int) -> None:
        policy.probs.view(9, 9, 6, -1)[:, node] = torch.eye(policy.probs.shape[1])[graph.edges[node].index(other)]

    def near(node: int) -> int:
        return min(graph.edges[node], key=lambda other: graph.shortest[other])

    def some(node: int) -> int:
        return near(node) if node % 2 else max(graph.edges[node])

    for node in range(1, 9):
        take(node, near(node))
    judged = world.evaluate(policy, 1, 0)
    assert judged.returns == [1.0] * 8 and judged.lengths == [graph.shortest[node] - 1 for node in range(1, 9)]

    for node in range(1, 9):
        take(node, some(node))
    written = []
    for node in range(1, 9):
        walk = [node]
        while walk[-1] and len(walk) < 6:
            walk.append(some(walk[-1]))
        written.append("".join(map(walks.letter, walk)))
    reward = Text(walks.make(options)).problems.reward
    earned = world.evaluate(policy, 1, 0).returns
    assert earned == reward([text[0] for text in written], [text[1:] for text in written])
    assert 0.0 < sum(earned) < 8.0, "some come there, not all by the shortest way"


def test_a_run_on_the_graph_is_judged_as_its_last_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_walks, "RUNS", tmp_path)
    monkeypatch.setitem(random_walks.WORLD, "q_learning", {"total_timesteps": 3_000, "n_envs": 4})
    found = random_walks.one("q_learning", 5)
    assert found["steps"] == 3_000 == found["curve"][-1][0] and len(found["curve"]) > 2
    assert found["curve"][-1][1] == pytest.approx(found["optimality"], abs=1e-5)
    assert found["least"] <= found["optimality"] < 1.0


def test_four_ways_over_a_graph_become_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_walks, "interval", lambda scores: (sorted(scores)[1], min(scores), max(scores)))
    results = Results(random_walks.NAME, tmp_path)
    assert random_walks.rows(tmp_path)[0].measured == "not measured yet"
    found = {
        "optimality": 0.97,
        "steps": 4_000,
        "curve": [[500, 0.1], [1_000, 0.96], [2_000, 0.9], [3_000, 0.95], [4_000, 0.97]],
    }
    for method in random_walks.TOLD:
        for seed in range(random_walks.SEEDS):
            more = {"read": 9_000, "imitated": 0.2} if method == "transformer" else {}
            results.write(random_walks.key(method, seed), random_walks.settings(method), {**found, **more})
    (row,) = random_walks.rows(tmp_path)
    assert "DQN 0.970 [0.970, 0.970] after 4 k steps (0.95 since 3 k)" in row.measured
    assert "and 9 k read, which alone brought 0.200" in row.measured and row.measured.endswith("asked for is reached")
    results.write(random_walks.key("ppo", 1), random_walks.settings("ppo"), {**found, "optimality": 0.9})
    assert random_walks.rows(tmp_path)[0].measured.endswith("**missed**"), "one seed of one is below"
    results.write(random_walks.key("ppo", 1), {}, found)
    measured = random_walks.rows(tmp_path)[0].measured
    assert "PPO with an MLP: 2 of 3 seeds" in measured and "reached" not in measured


# Guess the number


def test_bisection_guesses_as_often_as_its_tree_is_deep() -> None:
    documents = [Document(Prompt("3..17"), "", {"number": number}) for number in range(3, 18)]
    # One number after one guess, two after two, four after three, eight after four.
    assert guess_number.bisected(documents, 4) == (1.0, 49 / 15)
    assert guess_number.bisected(documents, 5) == (1.0, 49 / 15)
    assert guess_number.bisected(documents, 3) == (7 / 15, 41 / 15), "what is lost was guessed at thrice"


def test_games_are_held_against_where_they_began_and_the_most_that_can_be_won(tmp_path: Path) -> None:
    results = Results(guess_number.NAME, tmp_path)

    def write(stage: str, seed: int, success: float, **changes: Any) -> None:
        found = {"likeliest": {"success": success, "guesses": 4.0}, "optimum": 0.9, "bisection": (0.9, 3.5)}
        results.write(key(stage, seed), {**guess_number.RUN.settings(stage), **changes}, found)

    def measured() -> str:
        (row,) = guess_number.rows(tmp_path)
        return row.measured

    assert measured() == "not measured yet"
    write("sft", 0, 0.4)
    write("grpo", 0, 0.9, config={"learning_rate": 1.0})
    assert measured() == "fine-tuned on careless games: 1 of 3 seeds (40.0%); bisection 90.0% with 3.50"
    for seed in range(3):
        write("sft", seed, 0.4)
        write("grpo", seed, 0.9)
        write("ppo", seed, 0.79)
    assert measured().endswith(
        "from there PPO 79.0% [79.0%, 79.0%] with 4.00 guesses; bisection 90.0% with 3.50; **missed**"
    )
    for seed in range(3):
        write("ppo", seed, 0.89)
    assert measured().endswith("asked for is reached")
    for seed in range(3):
        write("ppo", seed, 0.9)
    assert measured().endswith("aim reached")


# Valid Python


def test_variety_is_compared_at_equal_size() -> None:
    short = ["a b", "c d"]
    found = valid_python.varied(before=["a a a a", "b b b b", "c c"], after=short, library=["x y", "x y", "z"])
    # Four words each: a a a a | a b, c d | x y, x y.
    assert found["before"] == [0.25, pytest.approx(1 / 3, abs=1e-4), 0.5]
    assert found["after"][:2] == [1.0, 1.0] and found["library"][:2] == [0.5, 0.5]


def test_the_distance_is_that_of_what_was_written(tmp_path: Path) -> None:
    policy, other = (letters.policy() for _ in range(2))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    source = letters.source(letters.problems(), n=12)
    source.collect(policy, None)
    for line in source.lines:
        assert valid_python.gone(policy, line) == pytest.approx(0.0, abs=1e-4)
        ids, own = torch.tensor([line.ids]), torch.tensor(line.own)
        likely = other.body.logits(other.body.forward(ids[:, :-1]))[0].log_softmax(1)
        said = likely[torch.arange(len(own) - 1), ids[0, 1:]][own[1:]].sum()
        assert valid_python.gone(other, line) == pytest.approx(sum(line.log_probs) - float(said.detach()), abs=1e-4)


def test_a_gain_that_costs_variety_is_no_gain(tmp_path: Path) -> None:
    results = Results(valid_python.NAME, tmp_path)

    def measured(gain: float, after: list[float], seeds: int = valid_python.SEEDS) -> str:
        distinct = {"before": [0.2, 0.5, 0.8], "after": after, "library": [0.1, 0.3, 0.4]}
        for seed in range(seeds):
            found = {"before": {"accepted": 0.05}, "after": {"accepted": 0.05 + gain}, "distinct": distinct, "kl": 9.0}
            results.write(key("grpo", seed), valid_python.RUN.settings("grpo"), found)
        (row,) = valid_python.rows(tmp_path)
        return row.measured

    assert "in 1 of 3 seeds" in (one := measured(0.6, [0.2, 0.5, 0.8], seeds=1)) and "reached" not in one
    assert measured(0.6, [0.2, 0.5, 0.8]).endswith("aim reached")
    assert measured(0.35, [0.2, 0.5, 0.8]).endswith("asked for is reached")
    assert measured(0.2, [0.2, 0.5, 0.8]).endswith("**missed**") and measured(0.6, [0.2, 0.4, 0.8]).endswith(
        "**missed**"
    )
