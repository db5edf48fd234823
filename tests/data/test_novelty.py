"""Networks that say what is new: fixed targets, whitening, what repetition and chance do to them, exact resume."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from tests.nets.examples import ACTIONS, OBSERVATIONS, equal, observations
from torchward.checkpoint import load_tree, save_tree
from torchward.config import ConfigError
from torchward.data.bonus import Steps
from torchward.data.curiosity import Curiosity, Foresight
from torchward.data.random_distillation import Distillation, RandomDistillation
from torchward.nets.embedding import CLIP, Whiten
from torchward.nets.spaces import Box, Discrete, Space
from torchward.nets.uniform import UniformPolicy

PLANE, TURNS = Box((2,)), Discrete(4)
SMALL: dict[str, Any] = {"batch_size": 32, "size": 8}


def made(kind: str, space: Space = PLANE, actions: Space = TURNS, seed: int = 0) -> Any:
    if kind == "curiosity":
        return Foresight(Curiosity(**SMALL, net_arch=(32,)), space, actions, seed, "cpu")
    return Distillation(RandomDistillation(**SMALL, net_arch=(32,)), space, seed, "cpu")


def walk(n: int, seed: int, at: float = 0.0, spread: float = 1.0) -> Steps:
    """Steps on a plane, each by one in one of the four directions, about where one is ``at``."""
    generator = Generator().manual_seed(seed)
    place = at + spread * torch.randn(n, 2, generator=generator)
    action = torch.randint(4, (n,), generator=generator)
    moves = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    return place, action, place + moves[action]


def in_kilometres(steps: Steps) -> Steps:
    """The same walk in another unit, and from another origin."""
    place, action, after = steps
    assert isinstance(place, Tensor) and isinstance(after, Tensor)
    return place / 1000 + 7, action, after / 1000 + 7


def arbitrary(space: Space, actions: Space, n: int, seed: int = 0) -> Steps:
    """Any observations, and actions as policies give them."""
    generator = Generator().manual_seed(seed)
    before, after = (observations(space, (n,), generator) for _ in range(2))
    chance = UniformPolicy(space, actions)
    return before, chance.act(before, (), chance.noise((n,), generator)).action, after


KINDS = ("curiosity", "distillation")


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_seen_often_is_less_new_than_what_was_not(kind: str) -> None:
    novelty = made(kind)
    first = novelty.measure(walk(500, 1)).mean()
    for seed in range(100):
        novelty.learn(walk(64, 100 + seed))
    known, unknown = novelty.measure(walk(500, 1)).mean(), novelty.measure(walk(500, 1, at=4.0)).mean()
    assert float(known) < 0.3 * float(first) and float(known) < 0.4 * float(unknown)


@pytest.mark.parametrize("kind", KINDS)
def test_measuring_changes_nothing_and_has_no_gradient_to_leak(kind: str) -> None:
    novelty = made(kind)
    novelty.learn(walk(64, 0))
    before = novelty.state_dict()
    with torch.no_grad():
        one, again = novelty.measure(walk(50, 1)), novelty.measure(walk(50, 1))
    assert torch.equal(one, again) and one.dtype == torch.float32 and bool((one >= 0).all())
    assert equal(before["whiten"], novelty.state_dict()["whiten"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_is_all_that_it_draws_on(kind: str) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = made(kind), made(kind), made(kind, seed=1)
    for novelty in (one, same, other):
        for seed in range(3):
            novelty.learn(walk(50, seed))
    assert torch.equal(torch.get_rng_state(), state)
    first, second, third = (novelty.measure(walk(9, 7)) for novelty in (one, same, other))
    assert torch.equal(first, second) and not torch.equal(first, third)


@pytest.mark.parametrize("kind", KINDS)
def test_its_state_goes_on_bit_for_bit(kind: str, tmp_path: Path) -> None:
    one, other = made(kind), made(kind, seed=3)
    other.load_state_dict(one.state_dict())  # also before anything is learnt
    one.learn(walk(50, 0))  # a minibatch, and 18 steps that wait
    save_tree(tmp_path, one.state_dict())
    other.load_state_dict(load_tree(tmp_path))
    for seed in (1, 2):
        left, right = one.learn(walk(40, seed)), other.learn(walk(40, seed))
        assert equal(left, right)
    assert torch.equal(one.measure(walk(9, 7)), other.measure(walk(9, 7)))


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_all_observations_can_be_new(kind: str, observation: str) -> None:
    novelty = made(kind, OBSERVATIONS[observation])
    steps = arbitrary(OBSERVATIONS[observation], TURNS, 40)
    metrics = novelty.learn(steps)
    measured = novelty.measure(steps)
    assert measured.shape == (40,) and bool(measured.isfinite().all())
    assert all(bool(torch.as_tensor(value).isfinite()) for value in metrics.values())


@pytest.mark.parametrize("action", ACTIONS)
def test_all_actions_have_consequences(action: str) -> None:
    novelty = made("curiosity", PLANE, ACTIONS[action])
    steps = arbitrary(PLANE, ACTIONS[action], 40)
    before = {name: p.clone() for name, p in novelty.models.named_parameters()}
    novelty.learn(steps)
    moved = {name for name, p in novelty.models.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(before), "each of the three networks learns"


@pytest.mark.parametrize("kind", KINDS)
def test_observations_are_whitened_by_all_that_was_learnt(kind: str) -> None:
    """So their unit does not matter: kilometres are as new as metres."""
    metres, kilometres = made(kind), made(kind)
    for seed in range(4):
        metres.learn(walk(64, seed))
        kilometres.learn(in_kilometres(walk(64, seed)))
    one, other = metres.measure(walk(100, 9)), kilometres.measure(in_kilometres(walk(100, 9)))
    torch.testing.assert_close(one, other, rtol=0.05, atol=0.01)


# Distillation


def test_the_random_network_stays_as_it_is() -> None:
    novelty = made("distillation")
    before = {name: tensor.clone() for name, tensor in novelty.target.state_dict().items()}
    for seed in range(5):
        novelty.learn(walk(64, seed))
    assert equal(novelty.target.state_dict(), before)
    own = [novelty.target.tower.weight0, novelty.predictor.tower.weight0]
    assert not torch.equal(*own) and not own[0].requires_grad


def test_novelty_is_the_mean_squared_distance_of_the_answers() -> None:
    novelty, steps = made("distillation"), walk(20, 0)
    assert isinstance(steps[2], Tensor)
    seen = novelty.whiten(steps[2])
    assert torch.equal(seen, steps[2]), "before anything was seen"
    gap = novelty.predictor(seen) - novelty.target(seen)
    torch.testing.assert_close(novelty.measure(steps), gap.square().sum(-1) / 8)


# Curiosity


def test_actions_can_be_told_from_what_they_did() -> None:
    novelty = made("curiosity")
    losses = [novelty.learn(walk(64, seed)) for seed in range(200)]
    assert float(losses[0]["inverse_loss"]) > 1.2 > 0.3 > float(losses[-1]["inverse_loss"])


def test_the_losses_are_as_in_the_paper() -> None:
    """The inverse loss is the cross entropy of the action; the weights are 1 - beta and beta; features feel both."""
    for weight in (0.0, 0.2, 1.0):
        settings = Curiosity(**SMALL, net_arch=(32,), forward_weight=weight)
        novelty: Any = Foresight(settings, PLANE, TURNS, 0, "cpu")
        surprise, error = novelty.judge(walk(32, 0))
        assert float(surprise.mean().detach()) == pytest.approx(
            torch.tensor(4.0).log().item(), abs=0.1
        )  # it knows nothing yet
        own = dict(novelty.models.named_parameters())
        expected = torch.autograd.grad(
            (1 - weight) * surprise.mean() + weight * error.mean(), list(own.values()), allow_unused=True
        )
        novelty.backlog.take = lambda steps: iter([steps])
        novelty.whiten.absorb = lambda steps: None
        novelty.learn(walk(32, 0))
        for (name, parameter), gradient in zip(own.items(), expected, strict=True):
            assert parameter.grad is not None or gradient is None, name
            if gradient is not None:
                torch.testing.assert_close(parameter.grad, gradient)
        assert bool(own["embedding.out.weight"].grad.any())


# Whitening


def test_whitening_is_numpys() -> None:
    space = OBSERVATIONS["nested"]
    whiten = Whiten(space)
    trees: list[Any] = [observations(space, (30,), Generator().manual_seed(seed)) for seed in range(3)]
    for tree in trees:
        whiten.absorb(tree)
    seen: Any = trees[0]
    every = torch.cat([tree["a"][1] for tree in trees]).double()
    out: Any = whiten(seen)
    expected = (seen["a"][1].double() - every.mean(0)) / every.std(0, unbiased=False)
    torch.testing.assert_close(out["a"][1].double(), expected.clamp(-CLIP, CLIP), atol=1e-5, rtol=0.0)
    assert torch.equal(out["a"][0], seen["a"][0]) and torch.equal(out["b"]["c"], seen["b"]["c"])
    assert out["b"]["d"].shape == seen["b"]["d"].shape


def test_each_pixel_is_whitened_by_itself() -> None:
    space = Box((36, 40, 3), 0.0, 255.0, "uint8")
    whiten, image = Whiten(space), observations(space, (300,), Generator().manual_seed(0))
    assert isinstance(image, Tensor)
    image[:, :18] //= 8
    whiten.absorb(image)
    out: Any = whiten(image)
    assert out.shape == image.shape
    flat = out.view(300, -1) / 255.0
    torch.testing.assert_close(flat.mean(0), torch.zeros(36 * 40 * 3), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(flat.std(0, unbiased=False), torch.ones(36 * 40 * 3), atol=1e-3, rtol=0.0)


@pytest.mark.parametrize("cls", [Curiosity, RandomDistillation])
@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"size": 0}, {"warm_up": -1}])
def test_settings_that_cannot_be(cls: Any, settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"expected {next(iter(settings))} of {cls.__name__} of at least"):
        cls(**settings)
