"""Exact divergences against torch.distributions; k1, k2, k3 summed over every outcome of a small softmax."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Normal, kl_divergence
from torch.testing import assert_close

from tests.functional.compare import assert_exact
from torchward.functional import divergences
from torchward.functional.divergences import k1, k2, k3

Estimator = Callable[[Tensor, Tensor], Tensor]


def random_logits(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_categorical_agrees_with_torch() -> None:
    p, q = random_logits(0, 6, 3, 5), random_logits(1, 6, 3, 5)
    exact = kl_divergence(Categorical(logits=p), Categorical(logits=q))
    assert_exact(divergences.categorical_kl(p, q + 7.0), exact)
    assert_exact(divergences.categorical_entropy(p - 3.0), Categorical(logits=p).entropy())


def test_gaussian_agrees_with_torch() -> None:
    mean_p, log_std_p, mean_q, log_std_q = (random_logits(seed, 6, 3, 4) for seed in range(4))
    p, q = Normal(mean_p, log_std_p.exp()), Normal(mean_q, log_std_q.exp())
    exact = kl_divergence(p, q).sum(-1)
    assert_close(divergences.gaussian_kl(mean_p, log_std_p, mean_q, log_std_q), exact, rtol=1e-12, atol=1e-12)
    assert_exact(divergences.gaussian_entropy(log_std_p), p.entropy().sum(-1))


def test_a_distribution_is_at_distance_zero_from_itself_in_float32() -> None:
    x, y = random_logits(0, 9, 4).float(), random_logits(1, 9, 4).float()
    assert torch.equal(divergences.categorical_kl(x, x), torch.zeros(9))
    assert torch.equal(divergences.gaussian_kl(x, y, x, y), torch.zeros(9))
    near = divergences.gaussian_kl(x, y, x, y + 1e-4)
    exact = divergences.gaussian_kl(x.double(), y.double(), x.double(), (y + 1e-4).double())
    assert_close(near.double(), exact, rtol=0.02, atol=0.0)


@pytest.mark.parametrize("lowest", [-torch.inf, torch.finfo(torch.float64).min])
def test_forbidden_actions_add_nothing_and_get_no_gradient(lowest: float) -> None:
    allowed = torch.tensor([True, False, True, True, False])
    p, q = random_logits(0, 8, 5), random_logits(1, 8, 5)
    masked_p = torch.where(allowed, p, lowest).requires_grad_()
    masked_q = torch.where(allowed, q, lowest).requires_grad_()
    kl, entropy = divergences.categorical_kl(masked_p, masked_q), divergences.categorical_entropy(masked_p)
    assert_exact(kl, divergences.categorical_kl(p[:, allowed], q[:, allowed]))
    assert_exact(entropy, divergences.categorical_entropy(p[:, allowed]))

    small_p, small_q = p[:, allowed].requires_grad_(), q[:, allowed].requires_grad_()
    small = divergences.categorical_kl(small_p, small_q) + divergences.categorical_entropy(small_p)
    expected = torch.autograd.grad(small.sum(), (small_p, small_q))
    for gradient, exact in zip(torch.autograd.grad((kl + entropy).sum(), (masked_p, masked_q)), expected, strict=True):
        assert torch.equal(gradient[:, ~allowed], torch.zeros(8, 2, dtype=torch.float64))
        assert_exact(gradient[:, allowed], exact)


def test_forbidden_only_by_p_adds_nothing_and_only_by_q_is_infinite() -> None:
    p = torch.tensor([[0.0, -torch.inf]], requires_grad=True)
    q = torch.zeros(1, 2, requires_grad=True)
    kl = divergences.categorical_kl(p, q)
    assert_close(kl, torch.tensor([2.0]).log())
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(kl.sum(), (p, q)))
    assert divergences.categorical_kl(q, p).item() == torch.inf


def test_one_allowed_action_has_no_entropy() -> None:
    logits = torch.tensor([[-torch.inf, 3.0, -torch.inf]], requires_grad=True)
    entropy = divergences.categorical_entropy(logits)
    assert entropy.item() == 0.0
    assert torch.equal(torch.autograd.grad(entropy.sum(), logits)[0], torch.zeros(1, 3))


class Softmax:
    """A policy and a reference over six outcomes; expectations are sums over all of them."""

    def __init__(self) -> None:
        self.logits = torch.tensor([1.5, 0.0, -1.0, 0.5, -2.0, 0.0], dtype=torch.float64, requires_grad=True)
        self.reference = torch.tensor([-1.0, 1.0, 0.5, 0.0, 0.5, -1.0], dtype=torch.float64).log_softmax(-1)
        self.log_prob = self.logits.log_softmax(-1)
        self.probs = self.log_prob.exp()
        self.reverse_kl = (self.probs * (self.log_prob - self.reference)).sum()  # KL(pi || ref)
        self.forward_kl = (self.reference.exp() * (self.reference - self.log_prob)).sum()  # KL(ref || pi)

    def gradient(self, loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, self.logits, retain_graph=True)[0]

    def mean(self, x: Tensor) -> Tensor:
        """The mean over samples: probabilities are held fixed, as they are once samples have been drawn."""
        return (self.probs.detach() * x).sum()


def test_k1_and_k3_are_unbiased_and_k2_is_half_the_mean_square() -> None:
    s = Softmax()
    assert_exact(s.mean(k1(s.log_prob, s.reference)), s.reverse_kl)
    assert_exact(s.mean(k3(s.log_prob, s.reference)), s.reverse_kl)
    assert_exact(s.mean(k2(s.log_prob, s.reference)), 0.5 * s.mean((s.log_prob - s.reference) ** 2))
    assert_exact(divergences.categorical_kl(s.logits, s.reference), s.reverse_kl)


def test_k2_is_the_kl_to_second_order() -> None:
    s = Softmax()
    for step in (1e-2, 1e-3):
        near = (s.logits.detach() + step * random_logits(4, 6)).log_softmax(-1)
        exact = divergences.categorical_kl(s.logits.detach(), near)
        assert abs(float(s.mean(k2(s.log_prob, near)).detach() / exact) - 1.0) < 2 * step


def test_k3_is_never_negative_and_zero_at_the_reference() -> None:
    x, y = random_logits(5, 1000), random_logits(6, 1000)
    assert bool((k3(x, y) >= 0).all()) and bool((k2(x, y) >= 0).all()) and bool((k1(x, y) < 0).any())
    for estimator in (k1, k2, k3):
        assert torch.equal(estimator(x, x), torch.zeros_like(x))
    assert torch.equal(k1(x, y), -k1(y, x))
    close = k3(x.float(), x.float() + 1e-3)
    assert bool((close > 0).all())


@pytest.mark.parametrize("reference_seed", range(3))
def test_gradients_of_the_estimators_in_a_loss(reference_seed: int) -> None:
    """k1: nothing at all. k2: the KL from policy to reference. k3: the KL from reference to policy."""
    s = Softmax()
    assert_exact(s.gradient(s.mean(k1(s.log_prob, s.reference))), torch.zeros(6, dtype=torch.float64))
    assert_exact(s.gradient(s.mean(k2(s.log_prob, s.reference))), s.gradient(s.reverse_kl))
    assert_exact(s.gradient(s.mean(k3(s.log_prob, s.reference))), s.gradient(s.forward_kl))
    assert float((s.gradient(s.reverse_kl) - s.gradient(s.forward_kl)).abs().max()) > 0.05
    other = random_logits(10 + reference_seed, 6).log_softmax(-1)
    assert_exact(s.gradient(s.mean(k1(s.log_prob, other))), torch.zeros(6, dtype=torch.float64))


def test_gradients_of_the_estimators_in_the_reward() -> None:
    """Weighting the score: k1 gives the KL's gradient; k3 lacks the part that its own derivative would bring."""
    s = Softmax()

    def score(k: Tensor) -> Tensor:
        return s.gradient(s.mean(k.detach() * s.log_prob))

    assert_exact(score(k1(s.log_prob, s.reference)), s.gradient(s.reverse_kl))
    k3_part = s.gradient(s.reverse_kl) - s.gradient(s.forward_kl)
    assert_exact(score(k3(s.log_prob, s.reference)), k3_part)


def test_off_policy_each_needs_its_importance_weight() -> None:
    s = Softmax()
    behaviour = torch.tensor([0.0, -1.0, 2.0, 0.0, 1.0, -2.0], dtype=torch.float64).log_softmax(-1)

    def mean(x: Tensor) -> Tensor:
        return (behaviour.exp() * x).sum()

    weight = (s.log_prob - behaviour).exp()
    for estimator in (k1, k3):
        k = estimator(s.log_prob, s.reference)
        assert_exact(mean(weight * k), s.reverse_kl)
        assert abs(float((mean(k) - s.reverse_kl).detach())) > 0.05
        # Differentiating through the weight adds the score's part, and both become the gradient of the KL itself.
        assert_exact(s.gradient(mean(weight * k)), s.gradient(s.reverse_kl))
    fixed = weight.detach()
    zero = torch.zeros(6, dtype=torch.float64)
    assert_exact(s.gradient(mean(fixed * k1(s.log_prob, s.reference))), zero)
    assert_exact(s.gradient(mean(fixed * k2(s.log_prob, s.reference))), s.gradient(s.reverse_kl))
    assert_exact(s.gradient(mean(fixed * k3(s.log_prob, s.reference))), s.gradient(s.forward_kl))
    assert float((s.gradient(mean(k2(s.log_prob, s.reference))) - s.gradient(s.reverse_kl)).abs().max()) > 0.05


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_get_one_clear_sentence() -> None:
    x, y = torch.zeros(2, 3), torch.zeros(3)
    with pytest.raises(ValueError, match=r"logits_p \[2, 3\], logits_q \[3\]"):
        divergences.categorical_kl(x, y)
    with pytest.raises(ValueError, match=r"log_std_p \[3\]"):
        divergences.gaussian_kl(x, y, x, x)
    for estimator in (k1, k2, k3):
        with pytest.raises(ValueError, match=r"reference_log_prob \[3\]"):
            estimator(x, y)
