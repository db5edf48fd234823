"""Six answers to one prompt, few enough to enumerate: where each loss of preferences sends the probability.

    python docs/examples/preference_losses.py

Picks are counted exactly, as if there were infinitely many of them, so what is seen is the loss, and no luck.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from torchward.algorithms.dpo import DPO, IPO, ORPO, Loss, SimPO, losses
from torchward.functional.divergences import categorical_kl
from torchward.functional.preference_losses import dpo, kto

REWARD = torch.tensor([1.5, 1.0, 0.5, 0.0, -0.5, -1.0], dtype=torch.float64)
REFERENCE = torch.tensor([0.10, 0.20, 0.05, 0.30, 0.15, 0.20], dtype=torch.float64).log()
BETA = 0.5
LOSSES: dict[str, Loss | None] = {
    "DPO": DPO(BETA), "DPO, smoothed 0.1": DPO(BETA, 0.1), "IPO": IPO(BETA / 4), "ORPO": ORPO(1.0), "SimPO": SimPO(),
    "KTO": None,
}  # fmt: skip
STEPS = (20, 200, 600)
ONE, OTHER = torch.combinations(torch.arange(6)).T
PICKED = torch.stack([torch.sigmoid(REWARD[ONE] - REWARD[OTHER]), torch.ones(15, dtype=torch.float64)])
"""How often the better answer of each pair is picked: by Bradley and Terry, and always."""

# The same in another world, of answers of one to six words. People like three; only up to three were compared.
WORDS = torch.arange(1.0, 7.0, dtype=torch.float64)
LIKED = torch.tensor([-1.0, 0.0, 1.0, 0.0, -1.5, -3.0], dtype=torch.float64)
WRITTEN = torch.tensor([0.20, 0.35, 0.25, 0.12, 0.06, 0.02], dtype=torch.float64).log()
CURVE = torch.stack([WORDS - 2.0, (WORDS - 2.0).square()], 1)
"""By what a policy of two weights tells answers from each other: how long they are, and that squared."""


def cost(loss: Loss | None, log_prob: Tensor) -> Tensor:
    """The mean of a loss over all pairs, for one policy on noisy and one on certain picks ``[2, 6]``. Each answer is
    one token, so sums and means are one."""
    if loss is None:
        return judged_alone(log_prob)
    ways = []
    for sides in ((ONE, OTHER), (OTHER, ONE)):
        own, known = (torch.cat([x[:, side].flatten() for side in sides]) for x in (log_prob, REFERENCE.expand(2, 6)))
        ways.append(losses(loss, own, known, torch.ones_like(own))[0].view_as(PICKED))
    return (PICKED * ways[0] + (1 - PICKED) * ways[1]).mean()


def judged_alone(log_prob: Tensor) -> Tensor:
    """KTO of the same picks: an answer is good as often as it was chosen. There is one prompt, so the reference point
    is taken over the answers of its pairs."""
    good = torch.zeros_like(log_prob).index_add(1, ONE, PICKED).index_add(1, OTHER, 1 - PICKED) / 5
    each = []
    for gained, share in zip(log_prob - REFERENCE, good, strict=True):
        point = gained.mean().clamp_min(0.0)
        up, down = (kto(gained, torch.full((6,), way), point, BETA) for way in (True, False))
        each.append(share * up + (1 - share) * down)
    return torch.stack(each).mean()


def compared(log_prob: Tensor, online: bool) -> Tensor:
    """DPO's loss of the second world: on pairs of up to three words, or on pairs as the policy writes them now."""
    gained = log_prob - WRITTEN
    picked = torch.sigmoid(LIKED[ONE] - LIKED[OTHER])
    often = log_prob.detach().exp()
    weight = often[ONE] * often[OTHER] if online else ((WORDS[ONE] <= 3) & (WORDS[OTHER] <= 3)).double()
    ways = [dpo(gained[one], gained[other], BETA) for one, other in ((ONE, OTHER), (OTHER, ONE))]
    return (weight * (picked * ways[0] + (1 - picked) * ways[1])).sum() / weight.sum()


def learnt(objective: Callable[[Tensor], Tensor], weight: Tensor, logits: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """The policy's log-probabilities after each number of full steps by Adam, from a weight of 0."""
    weight.requires_grad_()
    optimizer, found = torch.optim.Adam([weight], lr=0.05), []
    for step in range(1, max(STEPS) + 1):
        optimizer.zero_grad()
        objective(logits(weight).log_softmax(-1)).backward()
        optimizer.step()
        if step in STEPS:
            found.append(logits(weight).log_softmax(-1).detach())
    return found


def row(name: str, logits: Tensor, reference: Tensor, reward: Tensor) -> str:
    """Probabilities, divergence from the reference, and true reward, in a line."""
    probability = logits.softmax(0)
    shares = " ".join(f"{p:6.3f}" for p in probability.tolist())
    return f"{name:22} {shares} {float(categorical_kl(logits, reference)):7.2f} {float(probability @ reward):7.2f}"


def main() -> None:
    """Print three tables."""
    found = {
        name: learnt(
            lambda log_prob, loss=loss: cost(loss, log_prob),
            torch.zeros(2, 6, dtype=torch.float64),
            lambda weight: REFERENCE + weight,
        )
        for name, loss in LOSSES.items()
    }
    print(f"{'noisy picks':22} {'probability of answers, best first':41} {'KL':>7} {'reward':>7}")
    print(row("reference", REFERENCE, REFERENCE, REWARD))
    print(row("closed form", REFERENCE + REWARD / BETA, REFERENCE, REWARD))
    for name, policies in found.items():
        print(row(name, policies[-1][0], REFERENCE, REWARD))

    print(f"\n{'':22} {'KL, noisy picks':>22}   {'KL, certain picks':>22}   best")
    times = " ".join(f"{n:7,}" for n in STEPS)
    print(f"{'after steps':22} {times[1:]}   {times[1:]}   answer")
    for name, policies in found.items():
        noisy, certain = (" ".join(f"{float(categorical_kl(x[i], REFERENCE)):7.2f}" for x in policies) for i in (0, 1))
        print(f"{name:22} {noisy[1:]}   {certain[1:]}   {float(policies[-1][1, 0].exp()):6.3f}")

    print(f"\n{'answers of words':22} {' '.join(f'{int(n):6}' for n in WORDS)} {'KL':>7} {'reward':>7}")
    print(row("reference", WRITTEN, WRITTEN, LIKED))
    print(row("closed form", WRITTEN + LIKED / BETA, WRITTEN, LIKED))
    each = torch.eye(6, dtype=torch.float64)
    for name, basis, online in (
        ("a weight for each", each, False),
        ("two for all", CURVE, False),
        ("online", CURVE, True),
    ):
        policies = learnt(
            lambda log_prob, online=online: compared(log_prob, online),
            torch.zeros(basis.shape[1], dtype=torch.float64),
            lambda weight, basis=basis: WRITTEN + basis @ weight,
        )
        print(row(name, policies[-1], WRITTEN, LIKED))


if __name__ == "__main__":
    main()
