"""Exact dynamic programming on a known Markov decision process: what every estimator is held against.

The process is `transition[s, a, s']` (each row sums to 1), `reward[s, a]` (the expected reward) and gamma; a policy is
`policy[s, a]`. Use float64 for tight tolerances. A terminal state is absorbing: every action stays there, and pays 0.

gamma = 1 is allowed where the problem is episodic. Terminal states are then worth 0, and the rest is solved; a policy
that from some state can never reach a terminal one has no finite value, and is refused with a ValueError. (Where a loop
costs nothing, the optimal values are still right, but a greedy policy may choose to stay in the loop.)

The operators are `q_from_v` and its greedy or averaged value; the solvers apply them until nothing moves.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchward.functional._checks import in_unit_interval, positive

_SUM_TOLERANCE = 1e-4  # wide enough for float32 rows, narrow enough for a row that is simply wrong


class Solution(NamedTuple):
    """Optimal `value` [states], `q` and `policy` [states, actions]; `iterations` used and the last `residual`.

    The residual is the largest change of a value in the last iteration; the error is at most gamma / (1 - gamma) of it.
    """

    value: Float[Tensor, " states"]
    q: Float[Tensor, "states actions"]
    policy: Float[Tensor, "states actions"]
    iterations: int
    residual: float


def q_from_v(
    transition: Float[Tensor, "states actions states"],
    reward: Float[Tensor, "states actions"],
    value: Float[Tensor, " states"],
    gamma: float,
) -> Float[Tensor, "states actions"]:
    """One step of lookahead: Q(s, a) = r(s, a) + gamma * sum_s' P(s' | s, a) V(s').

    Raises ValueError where shapes do not fit or gamma lies outside [0, 1]. Source: Sutton and Barto, 2nd edition,
    equation 4.6.
    """
    _check_mdp(transition, reward, gamma)
    if value.shape != reward.shape[:1]:
        raise ValueError(f"Expected value of shape [{reward.shape[0]}], one per state, got {list(value.shape)}.")
    return _lookahead(transition, reward, value, gamma)


def greedy_policy(q: Float[Tensor, "states actions"]) -> Float[Tensor, "states actions"]:
    """The policy that always takes the best action, the first of them where several tie; one-hot rows."""
    return torch.zeros_like(q).scatter(-1, q.argmax(dim=-1, keepdim=True), 1.0)


def policy_evaluation_exact(
    transition: Float[Tensor, "states actions states"],
    reward: Float[Tensor, "states actions"],
    policy: Float[Tensor, "states actions"],
    gamma: float,
) -> Float[Tensor, " states"]:
    """The value of a policy, from the linear equation (I - gamma * P_pi) V = r_pi.

    Raises ValueError where the process or the policy is not one, or, with gamma = 1, the policy may never end. Source:
    Sutton and Barto, 2nd edition, equation 4.4.
    """
    _check_mdp(transition, reward, gamma, policy)
    chain, income = _under_policy(transition, reward, policy)
    system = torch.eye(len(income), dtype=chain.dtype, device=chain.device) - gamma * chain
    if gamma == 1.0:
        terminal = _terminal(transition, reward)
        _require_an_end(chain, terminal)
        system = _pin(system, terminal)  # their income is 0, and so becomes their value
    value: Tensor = torch.linalg.solve(system, income)
    return value


def policy_evaluation(
    transition: Float[Tensor, "states actions states"],
    reward: Float[Tensor, "states actions"],
    policy: Float[Tensor, "states actions"],
    gamma: float,
    tolerance: float = 1e-10,
    max_iterations: int = 100_000,
) -> Float[Tensor, " states"]:
    """The value of a policy by iteration, V <- r_pi + gamma * P_pi V, until no value moves by more than `tolerance`.

    Raises ValueError where the process or the policy is not one, the policy may never end (gamma = 1), or
    max_iterations do not suffice. Source: Sutton and Barto, 2nd edition, section 4.1.
    """
    _check_mdp(transition, reward, gamma, policy)
    chain, income = _under_policy(transition, reward, policy)
    if gamma == 1.0:
        _require_an_end(chain, _terminal(transition, reward))
    value, _, _ = _iterate(lambda v: income + gamma * (chain @ v), torch.zeros_like(income), tolerance, max_iterations)
    return value


def value_iteration(
    transition: Float[Tensor, "states actions states"],
    reward: Float[Tensor, "states actions"],
    gamma: float,
    tolerance: float = 1e-10,
    max_iterations: int = 100_000,
) -> Solution:
    """The optimal value by iteration, V <- max_a Q(s, a), until no value moves by more than `tolerance`.

    Raises ValueError where the process is not one or max_iterations do not suffice (with gamma = 1: perhaps because
    rewards can be collected for ever). Source: Sutton and Barto, 2nd edition, section 4.4, equation 4.10.
    """
    _check_mdp(transition, reward, gamma)
    start = reward.new_zeros(reward.shape[0])
    value, iterations, residual = _iterate(
        lambda v: _lookahead(transition, reward, v, gamma).amax(dim=-1), start, tolerance, max_iterations
    )
    q = _lookahead(transition, reward, value, gamma)
    return Solution(value, q, greedy_policy(q), iterations, residual)


def policy_iteration(
    transition: Float[Tensor, "states actions states"],
    reward: Float[Tensor, "states actions"],
    gamma: float,
    tolerance: float = 1e-10,
    max_iterations: int = 1_000,
) -> Solution:
    """The optimal value by evaluating a policy exactly, improving it greedily, and so on until no action is better.

    Starts from the uniform policy, which reaches an end wherever any policy does. A state's choice is changed only
    where an action is better by more than `tolerance`: rounding cannot make it run in circles, and where all actions
    tie it stays uniform. Raises ValueError where
    the process is not one, max_iterations do not suffice, or, with gamma = 1, an improved policy may never end. Source:
    Howard 1960; Sutton and Barto, 2nd edition, section 4.3.
    """
    _check_mdp(transition, reward, gamma)
    positive(max_iterations=max_iterations)
    policy = torch.full_like(reward, 1.0 / reward.shape[1])
    value = policy_evaluation_exact(transition, reward, policy, gamma)
    residual = 0.0
    for iteration in range(1, max_iterations + 1):
        q = _lookahead(transition, reward, value, gamma)
        settled = q.amax(dim=-1) - (policy * q).sum(dim=-1) <= tolerance
        if bool(settled.all()):
            return Solution(value, q, policy, iteration, residual)
        policy = torch.where(settled[:, None], policy, greedy_policy(q))
        improved = policy_evaluation_exact(transition, reward, policy, gamma)
        residual = float((improved - value).abs().max())
        value = improved
    raise ValueError(_not_converged(max_iterations, residual, tolerance))


def soft_value_iteration(
    transition: Float[Tensor, "states actions states"],
    reward: Float[Tensor, "states actions"],
    gamma: float,
    temperature: float,
    tolerance: float = 1e-10,
    max_iterations: int = 100_000,
) -> Solution:
    """The optimum of return plus temperature * entropy: V <- temperature * logsumexp_a(Q(s, a) / temperature).

    The optimal policy is softmax(Q / temperature). Terminal states are held at 0: there is nothing left to be undecided
    about. Raises ValueError where the process is not one, temperature is not above 0, or max_iterations do not suffice
    (with gamma = 1: perhaps because entropy can be collected for ever). Source: Haarnoja et al. 2017, equations 5 to 7.
    """
    _check_mdp(transition, reward, gamma)
    positive(temperature=temperature)
    terminal = _terminal(transition, reward)

    def backup(value: Tensor) -> Tensor:
        q = _lookahead(transition, reward, value, gamma)
        return (temperature * torch.logsumexp(q / temperature, dim=-1)).masked_fill(terminal, 0.0)

    value, iterations, residual = _iterate(backup, reward.new_zeros(reward.shape[0]), tolerance, max_iterations)
    q = _lookahead(transition, reward, value, gamma)
    return Solution(value, q, torch.softmax(q / temperature, dim=-1), iterations, residual)


def occupancy(
    transition: Float[Tensor, "states actions states"],
    policy: Float[Tensor, "states actions"],
    start: Float[Tensor, " states"],
    gamma: float,
) -> Float[Tensor, " states"]:
    """The discounted number of visits to each state, d(s) = sum_t gamma^t P(s_t = s): sums to 1 / (1 - gamma).

    Then <d, r_pi> is the expected return from `start`. With gamma = 1 absorbing states, visited for ever, count 0; the
    others hold the expected number of visits before the end. Raises ValueError where the process, the policy or the
    start is not one, or, with gamma = 1, the policy may never end. Source: Puterman 1994, section 6.9; undiscounted:
    Sutton and Barto, 2nd edition, equation 9.2.
    """
    _check_mdp(transition, policy, gamma, policy)
    if start.shape != policy.shape[:1] or not _is_distribution(start):
        raise ValueError(f"start must be a distribution over {policy.shape[0]} states, got shape {list(start.shape)}.")
    chain, _ = _under_policy(transition, policy, policy)
    system = torch.eye(len(start), dtype=chain.dtype, device=chain.device) - gamma * chain.T
    if gamma == 1.0:
        terminal = _terminal(transition, torch.zeros_like(policy))
        _require_an_end(chain, terminal)
        system = _pin(system, terminal)
        start = start.masked_fill(terminal, 0.0)
    visits: Tensor = torch.linalg.solve(system, start)
    return visits


def _lookahead(transition: Tensor, reward: Tensor, value: Tensor, gamma: float) -> Tensor:
    return torch.add(reward, transition @ value, alpha=gamma)


def _under_policy(transition: Tensor, reward: Tensor, policy: Tensor) -> tuple[Tensor, Tensor]:
    """The chain P_pi [states, states] and the income r_pi [states]."""
    return torch.einsum("sa,sat->st", policy, transition), (policy * reward).sum(dim=-1)


def _terminal(transition: Tensor, reward: Tensor) -> Bool[Tensor, " states"]:
    stays = torch.diagonal(transition, dim1=0, dim2=2).T == 1.0
    return (stays & (reward == 0.0)).all(dim=-1)


def _pin(system: Tensor, states: Tensor) -> Tensor:
    """The system with `unknown = right-hand side` as the equation of the given states."""
    return torch.where(states[:, None], torch.eye(len(states), dtype=system.dtype, device=system.device), system)


def _require_an_end(chain: Tensor, terminal: Tensor) -> None:
    ends = terminal
    for _ in range(len(terminal)):
        ends = ends | ((chain > 0) & ends).any(dim=-1)
    if not bool(ends.all()):
        lost = int((~ends).nonzero()[0, 0])
        raise ValueError(
            f"With gamma = 1 the policy must reach a terminal state (absorbing, reward 0) from everywhere, but from "
            f"state {lost} it never does; take gamma below 1 or add an end."
        )


def _iterate(
    operator: Callable[[Tensor], Tensor], value: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, int, float]:
    positive(tolerance=tolerance, max_iterations=max_iterations)
    residual = float("inf")
    for iteration in range(1, max_iterations + 1):
        improved = operator(value)
        residual = float((improved - value).abs().max())
        value = improved
        if residual <= tolerance:
            return value, iteration, residual
    raise ValueError(_not_converged(max_iterations, residual, tolerance))


def _not_converged(iterations: int, residual: float, tolerance: float) -> str:
    return (
        f"After {iterations} iterations values still move by {residual:.3g}, more than the tolerance {tolerance:.3g}; "
        f"raise max_iterations, use float64, or, with gamma = 1, check that every episode ends."
    )


def _is_distribution(rows: Tensor) -> bool:
    return bool((rows >= 0).all() & ((rows.sum(dim=-1) - 1.0).abs() <= _SUM_TOLERANCE).all())


def _check_mdp(transition: Tensor, reward: Tensor, gamma: float, policy: Tensor | None = None) -> None:
    in_unit_interval(gamma=gamma)
    states, actions = reward.shape
    if transition.shape != (states, actions, states) or states == 0 or actions == 0:
        raise ValueError(
            f"Expected transition [states, actions, states] and reward [states, actions], got "
            f"{list(transition.shape)} and {list(reward.shape)}."
        )
    if not _is_distribution(transition):
        raise ValueError("Every row transition[s, a] must be a distribution: not negative, and with the sum 1.")
    if policy is not None and (policy.shape != reward.shape or not _is_distribution(policy)):
        raise ValueError(f"Every row of policy {list(policy.shape)} must be a distribution over {actions} actions.")
