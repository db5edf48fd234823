"""Drawing tokens: the right frequencies, never a token outside the support, and supports by enumeration."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchward.nets.sampling import Sampling, among, draw, packed, unpacked

BELOW_ONE = 1.0 - 2.0**-24
WHOLE = Sampling()


def logits(rows: int, vocab: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "sampling", [WHOLE, Sampling(0.5), Sampling(2.0, top_k=4), Sampling(1.0, None, 0.7), Sampling(1.5, 5, 0.8)]
)
def test_frequencies_are_the_probabilities(sampling: Sampling) -> None:
    """Chi-square: its deviation from the degrees of freedom, in its own standard deviations."""
    one, count = logits(1, 9, seed=3), 40_000
    noise = torch.rand(count, generator=torch.Generator().manual_seed(1))
    drawn = draw(one.expand(count, 9), sampling, noise)
    probs = one[0].double() / sampling.temperature
    if drawn.support is not None:
        probs = probs.masked_fill(~unpacked(drawn.support[0], 9), -torch.inf)
    probs = probs.softmax(0)
    found = torch.bincount(drawn.token, minlength=9)
    possible = probs > 0
    assert not found[~possible].any()
    expected = count * probs[possible]
    chi_square = float(((found[possible] - expected) ** 2 / expected).sum())
    freedom = int(possible.sum()) - 1
    assert freedom >= 2 and abs(chi_square - freedom) < 4.0 * (2.0 * freedom) ** 0.5
    torch.testing.assert_close(drawn.log_prob.double(), probs[drawn.token].log(), atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("vocab", [2, 9, 515])
@pytest.mark.parametrize("sampling", [WHOLE, Sampling(top_k=1), Sampling(top_k=3), Sampling(top_p=0.6)])
def test_the_ends_of_the_noise_draw_possible_tokens(sampling: Sampling, vocab: int) -> None:
    """The first and the last token that can be drawn, whatever cannot be before and behind them."""
    for scale in (0.0, 1.0, 60.0):
        rows = logits(50, vocab, scale=scale)
        rows[:, 0] = rows[:, -1] = -1e4  # their probability is 0
        seen = among(rows, sampling) & (rows.softmax(1) > 0)
        for noise, side in ((0.0, seen.int().argmax(1)), (BELOW_ONE, vocab - 1 - seen.flip(1).int().argmax(1))):
            drawn = draw(rows, sampling, torch.full((50,), noise))
            assert seen.gather(1, drawn.token[:, None]).all()
            if scale < 60.0 and vocab < 100:  # no token is so unlikely that the noise cannot tell it from none
                assert drawn.token.tolist() == side.tolist()
            assert (drawn.log_prob > -104.0).all(), "a probability that float32 can hold"


def test_no_rounding_makes_a_token_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's cumulative sum is not monotone: entries between two that can be drawn may stand above them."""
    exact = Tensor.cumsum

    def shaken(x: Tensor, dim: int) -> Tensor:
        return exact(x, dim) + 1e-3 * torch.tensor([0.0, 1.0, -1.0, 1.0]).repeat(x.shape[1])[: x.shape[1]]

    monkeypatch.setattr(Tensor, "cumsum", shaken)
    rows = logits(1, 12).expand(20_000, 12)
    drawn = draw(rows, Sampling(top_k=3), torch.linspace(0.0, BELOW_ONE, 20_000))
    assert set(drawn.token.tolist()) == set(rows[0].topk(3).indices.tolist())


def test_without_noise_the_likeliest() -> None:
    rows = logits(20, 7)
    for sampling in (WHOLE, Sampling(0.3), Sampling(5.0, 2, 0.5)):
        assert torch.equal(draw(rows, sampling, None).token, rows.argmax(1))


def test_a_draw_is_a_function_of_its_own_row() -> None:
    rows, noise = logits(30, 11), torch.rand(30, generator=torch.Generator().manual_seed(0))
    whole = draw(rows, Sampling(0.8, 6, 0.9), noise)
    for i in range(30):
        one = draw(rows[i : i + 1], Sampling(0.8, 6, 0.9), noise[i : i + 1])
        assert one.token == whole.token[i]


def test_half_precision_is_read_as_float() -> None:
    rows = logits(4, 9).bfloat16()
    drawn = draw(rows, Sampling(0.7), torch.tensor([0.1, 0.4, 0.6, 0.9]))
    expected = (rows.float() / 0.7).log_softmax(1).gather(1, drawn.token[:, None]).squeeze(1)
    assert drawn.log_prob.dtype == torch.float32
    torch.testing.assert_close(drawn.log_prob, expected, atol=1e-6, rtol=0.0)


# What is drawn among


def test_top_k_holds_k_however_many_are_equally_likely() -> None:
    rows = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0], [0.0, 2.0, 2.0, 2.0, 1.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    for k in (1, 2, 3, 5, 9):
        seen = among(rows, Sampling(top_k=k))
        assert seen.sum(1).tolist() == [min(k, 5)] * 3
        for row, mask in zip(rows, seen, strict=True):
            assert k >= 5 or row[mask].min() >= row[~mask].max()
    among_equals = among(torch.zeros(1, 500), Sampling(top_k=7))
    assert among_equals.nonzero()[:, 1].tolist() == list(range(7)), "the same ones each time"


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.floats(0.05, 0.99))
def test_top_p_is_the_smallest_set_with_the_probability(weights: list[int], top_p: float) -> None:
    """By enumeration of all subsets: none with fewer tokens has as much, and of those with as many none has more."""
    probs = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    sums = [sum(some) / sum(weights) for size in range(1, 7) for some in itertools.combinations(weights, size)]
    if any(abs(each - top_p) < 1e-5 for each in sums):
        return  # which side of an edge it falls on is rounding
    (seen,) = among(probs.log().float()[None], Sampling(top_p=top_p))
    chosen = float(probs[seen].sum())
    assert chosen > top_p
    for size in range(1, len(weights) + 1):
        most = max(sum(some) for some in itertools.combinations(probs.tolist(), size))
        if size < int(seen.sum()):
            assert most < top_p
        elif size == int(seen.sum()):
            assert chosen == pytest.approx(most)


def test_top_p_counts_what_top_k_has_left() -> None:
    rows = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    assert among(rows, Sampling(top_p=0.65)).tolist() == [[True, True, False, False]]
    assert among(rows, Sampling(top_k=2, top_p=0.55)).tolist() == [[True, False, False, False]], "0.4 of 0.7"
    assert among(rows, Sampling(top_p=1e-9)).tolist() == [[True, False, False, False]], "never none"


def test_all_of_the_probability_is_all_tokens() -> None:
    """Also those that rounding would leave out."""
    assert Sampling(top_p=1.0).is_whole and not Sampling(top_p=0.999).is_whole and not Sampling(top_k=3).is_whole
    rows = torch.tensor([[30.0, 0.0, -90.0]])
    assert draw(rows, Sampling(top_p=1.0), torch.tensor([0.5])).support is None
    assert among(rows, Sampling(top_k=3, top_p=1.0)).all()


@given(st.integers(1, 40), st.integers(0, 2**20))
def test_a_support_survives_its_packing(vocab: int, seed: int) -> None:
    seen = torch.rand(3, 2, vocab, generator=torch.Generator().manual_seed(seed)) < 0.5
    bits = packed(seen)
    assert bits.dtype == torch.uint8 and bits.shape == (3, 2, -(-vocab // 8))
    assert torch.equal(unpacked(bits, vocab), seen)


def test_the_first_entry_is_the_lowest_bit() -> None:
    """As it is stored: another order would read old rollouts wrongly."""
    seen = torch.zeros(1, 11, dtype=torch.bool)
    seen[0, [0, 3, 9]] = True
    assert packed(seen).tolist() == [[1 + 8, 2]]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"temperature": 0.0}, "temperature above 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature above 0"),
        ({"top_k": 0}, "top_k of at least 1, got 0"),
        ({"top_p": 0.0}, "top_p above 0"),
        ({"top_p": 1.2}, "at most 1, got 1.2"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(wrong: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Sampling(**wrong)  # type: ignore[arg-type]
