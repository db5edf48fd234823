"""One seed, and for each name a generator of its own."""

import torch

from torchward.data.random import derive, generator, seeded


def test_a_name_and_a_seed_decide() -> None:
    draws = {(seed, name): torch.rand(4, generator=generator(seed, name)) for seed in (0, 1) for name in ("a", "b")}
    assert torch.equal(draws[0, "a"], torch.rand(4, generator=generator(0, "a")))
    values = [tuple(draw.tolist()) for draw in draws.values()]
    assert len(set(values)) == 4
    assert derive(3, "x") == derive(3, "x") != derive(3, "y")
    assert derive(1, "1/x") != derive(11, "/x")
    assert 0 <= derive(2**62, "x") < 2**63


def test_seeded_leaves_no_trace() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    with seeded(0, "policy"):
        first = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeded(0, "policy"):
        assert torch.equal(torch.rand(2), first)
    with seeded(0, "critic"):
        assert not torch.equal(torch.rand(2), first)
