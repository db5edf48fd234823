"""From names to runs: files of the user's, runs that start from others, stop, go on, and fail."""

import copy
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import torchward
from tests.algorithms import tiny_text
from tests.algorithms.test_goals import Reach
from tests.cli.conftest import QUIET, TINY, Command
from torchward import launch, launch_checks
from torchward.metrics import read_metrics
from torchward.nets.actor_critic import ActorCritic, Network
from torchward.nets.q_policy import QPolicy
from torchward.nets.spaces import Box, Discrete
from torchward.run import RunOptions
from torchward.tasks import control, find
from torchward.tasks.find import LaunchError

SILENT = RunOptions(tensorboard=False, progress=False)


def learnt(path: Path) -> dict[str, torch.Tensor]:
    return torchward.load(path, which="last").state_dict()


def same(one: Path, other: Path) -> bool:
    left, right = learnt(one), learnt(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def timeless(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("time", "steps_per_second")} for row in read_metrics(path)]


def test_an_algorithm_of_the_users_stops_and_goes_on(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ("train", "./search.py", "./world.py", *QUIET, "--scale", "0.5")
    assert command(*train, "--name", "whole").code == 0
    with monkeypatch.context() as patch:
        patch.setenv("STOP_AT", "40")
        code, _, err = command(*train, "--name", "parts")
    assert code == 130 and "stopped at step 40 of 100" in err
    whole, parts = place / "runs" / "whole", place / "runs" / "parts"
    assert not (parts / "result.json").exists()
    monkeypatch.chdir("/")  # a run knows where its files are
    assert command("resume", parts).code == 0
    assert (parts / "result.json").exists()
    assert same(whole, parts)
    assert timeless(whole) == timeless(parts)


def test_a_prolonged_run_is_not_finished(command: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("train", "./search.py", "./world.py", *QUIET, "--name", "run").code == 0
    run = place / "runs" / "run"
    assert json.loads((run / "result.json").read_text())["step"] == 100
    document = json.loads((run / "config.json").read_text())
    document["total"] = document["manifest"]["config"]["total_timesteps"] = 200
    (run / "config.json").write_text(json.dumps(document))
    with monkeypatch.context() as patch:
        patch.setenv("STOP_AT", "150")
        assert command("resume", run).code == 130
    assert not (run / "result.json").exists(), "a sweep would pass over it"
    assert command("resume", run).code == 0
    assert json.loads((run / "result.json").read_text())["step"] == 200


def test_a_run_of_ppo_goes_on_bit_for_bit(place: Path) -> None:
    small: dict[str, Any] = {"n_envs": 2, "n_steps": 32, "batch_size": 32, "n_epochs": 2, "options": SILENT}
    whole = torchward.train("ppo", "./world.py", total_timesteps=256, name="whole", **small)
    half = torchward.train("ppo", "./world.py", total_timesteps=128, name="half", **small)
    file = half.path / "config.json"
    stored = json.loads(file.read_text())
    stored["total"] = stored["manifest"]["config"]["total_timesteps"] = 256
    file.write_text(json.dumps(stored))
    assert torchward.resume(half.path).step == 256
    assert same(whole.path, half.path)


def test_threads_are_recorded_and_set_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    module = find.algorithm("./search.py").module
    original = module.train

    def train(*given: Any) -> Any:
        seen.append(torch.get_num_threads())
        return original(*given)

    monkeypatch.setattr(module, "train", train)
    run = torchward.train(module, "./world.py", threads=2, options=SILENT)
    assert json.loads((run.path / "config.json").read_text())["threads"] == 2
    torchward.resume(run.path, algorithm=module)
    assert seen == [2, 2]
    with pytest.raises(LaunchError, match=r"torchward\.resume\(.*algorithm=\.\.\.\)"):
        torchward.resume(run.path)


def test_init_starts_from_the_policy_of_another_run(command: Command, trained: Path, place: Path) -> None:
    init = ("train", "ppo", "./other.py", *TINY, *QUIET, "--init", str(trained))
    (place / "other.py").write_text((place / "world.py").read_text().replace("self.steps == 10", "self.steps == 7"))
    assert command(*init, "--learning-rate", "0", "--name", "still").code == 0
    assert command(*init, "--name", "on").code == 0
    before, still, on = torchward.load(trained).state_dict(), learnt(place / "runs/still"), learnt(place / "runs/on")
    trainable = [name for name in before if "norm" not in name]
    assert all(torch.equal(before[name], still[name]) for name in trainable)
    assert not all(torch.equal(before[name], on[name]) for name in trainable)
    manifest = json.loads((place / "runs/on/config.json").read_text())["manifest"]
    assert manifest["init"] == str(trained)
    assert manifest["config"]["network"]["normalize_observation"] is True  # the policy's network, not the default one

    # A run that was killed before its first checkpoint starts from that policy again.
    resumed = place / "runs" / "on"
    kept = learnt(resumed)
    for path in (resumed / "checkpoint").iterdir():
        path.rename(place / path.name)
    (resumed / "metrics.jsonl").unlink()
    assert command("resume", resumed).code == 0
    again = learnt(resumed)
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_init_tells_which_options_of_the_task_were_others(command: Command, trained: Path) -> None:
    world = str(trained.parents[1] / "world.py")
    again = ("train", "ppo", world, "--total-timesteps", "256", "--no-tensorboard", "--init", str(trained))
    _, _, err = command(*again, "--name", "same")
    assert "note:" not in err
    _, _, err = command(*again, "--max-episode-steps", "5", "--name", "shorter")
    assert f"torchward: note: {trained} had max_episode_steps 0 (here 5)\n" in err


@pytest.mark.parametrize(
    ("task", "options", "sentence"),
    [
        ("CartPole-v1", (), "has the observation space Box(4), but CartPole-v1 has Box(4) (their bounds differ)"),
        ("Acrobot-v1", (), "has the observation space Box(4), but Acrobot-v1 has Box(6)"),
        ("./world.py", ("--net-arch", "8"), "brings its own network"),
    ],
)
def test_init_needs_equal_spaces(
    command: Command, trained: Path, task: str, options: tuple[str, ...], sentence: str
) -> None:
    code, _, err = command("train", "ppo", task, "--init", str(trained), *options)
    assert code == 2 and sentence in err


def test_init_needs_an_algorithm_that_takes_a_policy(command: Command, trained: Path) -> None:
    code, _, err = command("train", "./search.py", "./world.py", "--init", str(trained))
    assert code == 2 and "search starts from no other policy" in err


@pytest.mark.parametrize(("fault", "sentence"), [("nan", "NaN"), ("raise", "the robot fell off the table")])
def test_an_environment_that_fails_stops_the_run(command: Command, place: Path, fault: str, sentence: str) -> None:
    world = ("./world.py", "--env-kwargs", json.dumps({"fault": fault, "after": 100}))
    code, _, err = command("train", "ppo", *world, *TINY, *QUIET, "--name", "bad")
    assert code == 1
    assert sentence in err and "world" in err and "step 128" in err and "Traceback" not in err
    assert err.count("\n") == 1
    assert [path.name for path in (place / "runs/bad/checkpoint").iterdir()] == ["128"]


def test_an_environment_that_never_begins_leaves_no_run(command: Command, place: Path) -> None:
    text = (place / "world.py").read_text().replace("self.steps = 0", "raise OSError('no robot')")
    (place / "world.py").write_text(text)
    code, _, err = command("train", "ppo", "./world.py", *TINY, *QUIET)
    assert code == 1 and "world raised OSError" in err and "no robot" in err and err.count("\n") == 1
    assert list((place / "runs").iterdir()) == []


class Small(gym.Env[Any, Any]):
    """As a user's program has it."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length: int = 5) -> None:
        self.length, self.steps = length, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return np.zeros(2, np.float32), 1.0, self.steps == self.length, False, {}


@pytest.mark.parametrize("make", [Small, lambda: Small(), Small()], ids=["class", "factory", "instance"])
def test_an_environment_from_python(place: Path, make: Any) -> None:
    run = torchward.train("./search.py", make, options=SILENT, path=place / "here")
    assert run.path == place / "here"
    with pytest.raises(LaunchError, match=r"task=\.\.\."):
        torchward.resume(run.path)
    assert torchward.resume(run.path, task=make).step == 100


def test_a_task_file_may_hold_a_factory_a_task_or_several_worlds(place: Path) -> None:
    (place / "made.py").write_text("from world import Env\n\ndef make(after=1):\n    return Env(after=after)\n")
    (place / "task.py").write_text("from torchward.envs.task import Control\n\ntask = Control('CartPole-v1')\n")
    (place / "two.py").write_text("import world\n\nclass A(world.Env): ...\nclass B(world.Env): ...\n")
    try:
        assert find.task("./made.py").name == "made"
        assert find.task("./task.py").task.name == "CartPole-v1"
        assert find.task("./two.py:B").name == "B"
        with pytest.raises(LaunchError, match="holds several environments: name one"):
            find.task("./two.py")
    finally:
        sys.modules.pop("world", None)


def test_python_fields_and_their_errors(place: Path) -> None:
    with pytest.raises(torchward.config.ConfigError, match=r"'n_step'\. Did you mean 'n_steps'"):
        torchward.train("ppo", "CartPole-v1", n_step=3)
    with pytest.raises(torchward.config.ConfigError, match="n_steps expects a whole number; got 'many'"):
        torchward.train("ppo", "CartPole-v1", n_steps="many")
    changed = launch.change_all(
        launch.defaults(find.algorithm("ppo"), "CartPole-v1"),
        {"net_arch": (8,), "stop_return": 3, "max_episode_steps": 9, "seed": 2},
    )
    assert changed.config.network.net_arch == (8,) and changed.config.seed == 2
    assert changed.config.gae_lambda == control.ppo_cartpole().config.gae_lambda  # tuned, as nothing else was said
    assert changed.options is not None and changed.options.stop_return == 3.0
    assert changed.env is not None and changed.env.max_episode_steps == 9


def test_an_id_without_a_version_is_that_of_the_newest(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = launch.defaults(find.algorithm("ppo"), "CartPole-v1")
    assert launch.defaults(find.algorithm("ppo"), "CartPole") == tuned
    chosen = launch.change_all(tuned, {"total_timesteps": 256, "n_steps": 32, "tensorboard": False, "progress": False})
    run = launch.begin(find.algorithm("ppo"), "CartPole", chosen).run
    assert run.path.name == "ppo-CartPole-v1-0"
    assert (run.manifest["task"], run.manifest["task_name"]) == ("CartPole-v1", "CartPole-v1")
    for version in (0, 2):
        name = f"torchward-test/Named-v{version}"
        monkeypatch.setitem(gym.registry, name, gym.envs.registration.EnvSpec(name, "tests:Small"))
    assert find.identity("torchward-test/Named") == "torchward-test/Named-v2"
    (place / "worlds_of_mine.py").write_text("")
    monkeypatch.syspath_prepend(str(place))
    assert find.identity("worlds_of_mine:torchward-test/Named") == "worlds_of_mine:torchward-test/Named-v2"
    assert find.identity("worlds_of_nobody:torchward-test/Named") == "worlds_of_nobody:torchward-test/Named"
    for other in ("CartPole-v0", "Cartpole", "./world.py", "./world.py:Env", "countdown", Small, place, "no such id"):
        assert find.identity(other) == other


def test_every_preset_is_of_a_task_that_exists() -> None:
    """In some version: an older Gymnasium has Taxi-v3."""
    names = {spec.name for spec in gym.registry.values()}
    for (algorithm, task), preset in control.PRESETS.items():
        found = find.algorithm(algorithm)
        assert isinstance(preset().config, found.Config), task
        assert task.rpartition("-v")[0] in names or task == "ALE/*"


def test_threads_are_chosen_by_the_size_of_the_network() -> None:
    from torchward.algorithms import ppo

    task = find.task("CartPole-v1").task
    torch.set_num_threads(2)
    try:
        assert launch.choose_threads(ppo.Config(), task) == 1
        assert launch.choose_threads(ppo.Config(network=Network(net_arch=(256,))), task) == 2
    finally:
        torch.set_num_threads(1)


def test_rows_are_as_long_as_the_policy_reads_where_nobody_says_how_long() -> None:
    policy = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=64))
    found = dict[str, int]()
    for algorithm in map(find.algorithm, find.algorithms()):
        config = algorithm.Config()
        chosen = launch_checks.in_context(algorithm, policy, config, config)
        if hasattr(config, "max_length"):
            found[algorithm.name] = chosen.max_length
            asked = replace(config, max_length=100)
            assert launch_checks.in_context(algorithm, policy, asked, config) is asked
        else:
            assert chosen is config
    rows = "classify", "distill", "expert_iteration", "masked_lm", "pretrain", "sft"
    assert found == {**dict.fromkeys(rows, 64), **dict.fromkeys(("dpo", "kto", "reward_model"), 512)}


class Halved(torch.nn.Module):
    """An encoder of the user's own, which nothing can load but its program."""

    features = 8

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 8)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.layer(observation / 2)
        return made


def test_a_run_is_resumed_with_the_policy_that_it_began_with(tmp_path: Path) -> None:
    """References and divergences are told by it, whoever hands over another of the same architecture."""
    task = tiny_text.task(graded=True)
    begun = tiny_text.policy(task)
    weights = copy.deepcopy(begun.state_dict())
    small: dict[str, Any] = {"num_generations": 4, "generation_batch_size": 8, "options": SILENT}
    run = launch.train("grpo", task, path=tmp_path / "run", policy=begun, beta=0.1, total_timesteps=40, **small)
    assert any(not torch.equal(one, weights[name]) for name, one in begun.state_dict().items()), "it has learnt"
    for given in (None, tiny_text.policy(task, seed=5)):
        ready = launch.take_up(run.path, task=task, policy=given)
        assert given is None or ready.policy is given
        assert all(torch.equal(one, weights[name]) for name, one in ready.policy.state_dict().items())


def test_a_policy_that_only_its_program_can_build_is_asked_for(tmp_path: Path) -> None:
    def made(encoder: torch.nn.Module) -> ActorCritic:
        space = find.task("CartPole-v1").task
        return ActorCritic(space.observation_space, space.action_space, Network(net_arch=(8,)), encoder=encoder)

    begun = made(Halved())
    weights = copy.deepcopy(begun.state_dict())
    run = launch.train("ppo", "CartPole-v1", path=tmp_path / "run", policy=begun, options=SILENT, total_timesteps=256)
    with pytest.raises(LaunchError, match=r"policy of its own \(ActorCritic\): go on from Python, .*policy=\.\.\."):
        launch.take_up(run.path)
    ready = launch.take_up(run.path, policy=made(Halved()))
    assert all(torch.equal(one, weights[name]) for name, one in ready.policy.state_dict().items())
    wider = Halved()
    wider.layer = torch.nn.Linear(4, 9)
    wider.features = 9
    with pytest.raises(LaunchError, match="expected a policy of the architecture that the run began with, got a Actor"):
        launch.take_up(run.path, policy=made(wider))


KEPT: dict[str, Any] = {"total_timesteps": 120, "learning_starts": 40, "batch_size": 16, "buffer_size": 1_000}


@pytest.mark.parametrize(
    ("algorithm", "settings", "sentence"),
    [
        (
            "dqn",
            {"exploration_end": 0.0},
            "expected for kl_coef a policy that gives each action some probability, got ",
        ),
        ("rainbow", {}, "a greedy QPolicy .* with exploration_end above 0, or boltzmann exploration"),
        ("td3", {"noise_std": 0.0}, "got a DeterministicActor without noise; begin from a run with noise_std above 0"),
    ],
)
def test_only_what_explores_can_be_stayed_close_to(
    place: Path, algorithm: str, settings: dict[str, Any], sentence: str
) -> None:
    world = "Pendulum-v1" if algorithm == "td3" else "./world.py"
    first = torchward.train(algorithm, world, path=place / "first", options=SILENT, **KEPT, **settings)
    with pytest.raises(LaunchError, match=sentence):
        torchward.train(algorithm, world, init=first.path, kl_coef=0.1, options=SILENT, **KEPT)


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ("dqn", {}),
        ("dqn", {"recurrent": "lstm", "burn_in": 2, "sequence_length": 4}),
        ("rainbow", {"exploration": "boltzmann"}),
        ("sac", {}),
    ],
)
def test_a_policy_with_a_replay_stays_close_to_another(place: Path, algorithm: str, settings: dict[str, Any]) -> None:
    first = torchward.train(algorithm, "./world.py", path=place / "first", options=SILENT, **KEPT, **settings)
    networks = {name: value for name, value in settings.items() if name != "recurrent"}  # which the policy brings
    run = torchward.train(
        algorithm, "./world.py", init=first.path, path=place / "on", kl_coef=0.1, options=SILENT, **KEPT, **networks
    )
    paid = [row["kl"] for row in read_metrics(run.path) if row.get("kl") is not None]
    assert paid and np.isfinite(paid).all()
    assert all(bool(value.isfinite().all()) for value in learnt(run.path).values())


def test_a_target_without_a_weight_that_follows_it_is_refused(place: Path) -> None:
    first = torchward.train("dqn", "./world.py", path=place / "first", options=SILENT, **KEPT)
    with pytest.raises(
        LaunchError, match=r"expected with kl_target a kl_coef above 0, .* got kl_target 2.0 and kl_coef 0.0"
    ):
        torchward.train("dqn", "./world.py", init=first.path, path=place / "on", kl_target=2.0, options=SILENT, **KEPT)
    assert not (place / "on").exists()


@pytest.mark.parametrize(("slower", "bf16"), [(10.0, True), (0.5, True), (10.0, False)])
def test_a_processor_that_is_slow_in_bfloat16_is_told_of(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], slower: float, bf16: bool
) -> None:
    times = {torch.bfloat16: 0.01 * slower, torch.float32: 0.01}
    monkeypatch.setattr(launch_checks, "_seconds_of_a_product", lambda dtype: times[dtype])
    settings: dict[str, Any] = {"total_timesteps": 64, "max_length": 8, "hidden_size": 16, "bf16": bf16}
    torchward.train("pretrain", tiny_text.task(), path=place / "run", options=RunOptions(tensorboard=False), **settings)
    said = "bf16: products in bfloat16 take 10.0 times as long here as in float32; this run is quicker without"
    assert (said in capsys.readouterr().err) == (slower > 1.0 and bf16)


CHANGING = """
import gymnasium as gym
import numpy as np

class World(gym.Env):
    observation_space = gym.spaces.Box(-1.0, 1.0, (SIZE,))
    action_space = gym.spaces.Discrete(CHOICES)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(SIZE, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(SIZE, np.float32), 1.0, self.time == 5, False, {}
"""


@pytest.mark.parametrize(
    ("size", "choices", "what"), [(4, 2, "observation space Box(3)"), (3, 5, "action space Discrete(2)")]
)
def test_an_environment_that_was_changed_since_is_told(
    command: Command, place: Path, size: int, choices: int, what: str
) -> None:
    world = place / "changing.py"
    world.write_text(CHANGING.replace("SIZE", "3").replace("CHOICES", "2"))
    short = ("--total-timesteps", "60", "--learning-starts", "20", *QUIET)
    assert command("train", "dqn", f"./{world.name}", *short, "--name", "before").code == 0
    world.write_text(CHANGING.replace("SIZE", str(size)).replace("CHOICES", str(choices)))
    for words in (("evaluate", "runs/before"), ("watch", "runs/before"), ("resume", "runs/before")):
        code, _, err = command(*words)
        assert code == 2 and f"runs/before has the {what}, but " in err
        assert "go back to the environment that it began with" in err


def test_numbers_that_cannot_be_are_refused(command: Command, place: Path) -> None:
    short = ("dqn", "./world.py", "--total-timesteps", "60", "--learning-starts", "20", *QUIET)
    assert "expected threads of at least 1, or 0" in command("train", *short, "--threads", "-2").err
    assert (
        "expected seed of at least 0 and below 2 to the power of 63"
        in command("train", *short, "--seed", str(2**63)).err
    )
    assert command("train", *short, "--name", "one").code == 0
    assert "episodes has to be at least 1; got 0" in command("watch", "runs/one", "--episodes", "0").err
    made = gym.make("CartPole-v1").unwrapped
    made.spec = None
    with pytest.raises(
        LaunchError, match="CartPoleEnv is made already, and takes no sutton; give its class or a factory"
    ):
        torchward.train("dqn", made, env_kwargs={"sutton": True}, options=SILENT, **KEPT)


def test_a_product_takes_some_time_in_either_type() -> None:
    assert all(0.0 < launch_checks._seconds_of_a_product(dtype) < 10.0 for dtype in (torch.float32, torch.bfloat16))


def test_hindsight_would_lose_the_price_of_the_distance(place: Path) -> None:
    made = torchward.load(torchward.train("sac", Reach, path=place / "first", options=SILENT, **KEPT).path)
    with pytest.raises(LaunchError, match=r"expected no kl_coef with hindsight, .* got replay=HER; leave one out"):
        torchward.train("sac", Reach, policy=made, replay="her", kl_coef=0.1, options=SILENT, **KEPT)


def test_a_policy_that_is_given_excuses_no_replay(place: Path) -> None:
    """No new network is tried then, which one with an encoder of its own does not need; the replay is."""
    policy = QPolicy(Box((4,), -1.0, 1.0), Discrete(2))
    for settings, sentence in (
        ({"frame_stack": 4}, "frame_stack = 4 needs images"),
        ({"replay": "her"}, "hindsight needs a Dict of observation, achieved_goal and desired_goal"),
    ):
        with pytest.raises(ValueError, match=sentence):
            torchward.train("dqn", "./world.py", policy=policy, options=SILENT, **{**KEPT, **settings})
    assert not (place / "runs").exists(), "it was said before a run was begun"


def test_a_run_that_is_finished_says_so(command: Command, trained: Path, place: Path) -> None:
    path = shutil.copytree(trained, place / "runs" / "copy")
    before = learnt(path)
    code, _, err = command("resume", path)
    assert code == 0 and f"{path} was already finished, at step 256; a new run goes on from its policy" in err
    assert err.splitlines()[0].endswith(f" --init {path}") and "torchward train ppo " in err
    assert all(torch.equal(before[name], tensor) for name, tensor in learnt(path).items())
