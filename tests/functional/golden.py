"""One table, worked out by hand, of rows that end in every way, for all estimators of returns and advantages.

All rows earn 1, 2, 3, 4 and have the values 8, 4, 2, 6. gamma = lambda = 1/2 and the ratios are powers of 2, so that
every number below is exact in float32. A 100 is a value that must not be read: no future follows a termination.
"""

from typing import NamedTuple

import torch
from torch import Tensor

GAMMA = 0.5
LAMBDA = 0.5
RHO_BAR = 2.0  # above c_bar = 1, so that a swap of the two shows
REWARD = [1.0, 2.0, 3.0, 4.0]
VALUE = [8.0, 4.0, 2.0, 6.0]
RATIO = [2.0, 0.5, 0.25, 4.0]  # rho = 2, 1/2, 1/4, 2 and c = 1, 1/2, 1/4, 1


class Row(NamedTuple):
    """A row of four steps and what each estimator makes of it; `two_step` is the n-step return with n = 2."""

    name: str
    terminated: list[int]
    boundary: list[int]
    next_value: list[float]
    discounted: list[float]
    two_step: list[float]
    lambda_return: list[float]
    gae: list[float]
    vtrace_target: list[float]
    vtrace_advantage: list[float]
    retrace: list[float]


ROWS = [
    Row(
        name="runs on past its last row",
        terminated=[0, 0, 0, 0],
        boundary=[0, 0, 0, 0],
        next_value=[4.0, 2.0, 6.0, 10.0],
        discounted=[3.875, 5.75, 7.5, 9.0],
        two_step=[2.5, 5.0, 7.5, 9.0],
        lambda_return=[3.046875, 4.1875, 6.75, 9.0],
        gae=[-4.953125, 0.1875, 4.75, 3.0],
        vtrace_target=[-2.03125, 3.9375, 3.75, 12.0],
        vtrace_advantage=[-10.0625, -0.0625, 1.75, 6.0],
        retrace=[2.921875, 3.6875, 7.5, 9.0],
    ),
    Row(
        name="terminated, nobody says boundary",
        terminated=[0, 1, 0, 0],
        boundary=[0, 0, 0, 0],
        next_value=[4.0, 100.0, 6.0, 10.0],
        discounted=[2.0, 2.0, 7.5, 9.0],
        two_step=[2.0, 2.0, 7.5, 9.0],
        lambda_return=[2.5, 2.0, 6.75, 9.0],
        gae=[-5.5, -2.0, 4.75, 3.0],
        vtrace_target=[-2.5, 3.0, 3.75, 12.0],
        vtrace_advantage=[-11.0, -1.0, 1.75, 6.0],
        retrace=[2.5, 2.0, 7.5, 9.0],
    ),
    Row(
        name="time limit",
        terminated=[0, 0, 0, 0],
        boundary=[0, 1, 0, 0],
        next_value=[4.0, 12.0, 6.0, 10.0],
        discounted=[5.0, 8.0, 7.5, 9.0],
        two_step=[5.0, 8.0, 7.5, 9.0],
        lambda_return=[4.0, 8.0, 6.75, 9.0],
        gae=[-4.0, 4.0, 4.75, 3.0],
        vtrace_target=[-1.0, 6.0, 3.75, 12.0],
        vtrace_advantage=[-8.0, 2.0, 1.75, 6.0],
        retrace=[4.0, 8.0, 7.5, 9.0],
    ),
    Row(
        name="terminated at the time limit",
        terminated=[0, 1, 0, 0],
        boundary=[0, 1, 0, 0],
        next_value=[4.0, 100.0, 6.0, 10.0],
        discounted=[2.0, 2.0, 7.5, 9.0],
        two_step=[2.0, 2.0, 7.5, 9.0],
        lambda_return=[2.5, 2.0, 6.75, 9.0],
        gae=[-5.5, -2.0, 4.75, 3.0],
        vtrace_target=[-2.5, 3.0, 3.75, 12.0],
        vtrace_advantage=[-11.0, -1.0, 1.75, 6.0],
        retrace=[2.5, 2.0, 7.5, 9.0],
    ),
    Row(
        name="terminated in the last row",
        terminated=[0, 0, 0, 1],
        boundary=[0, 0, 0, 1],
        next_value=[4.0, 2.0, 6.0, 100.0],
        discounted=[3.25, 4.5, 5.0, 4.0],
        two_step=[2.5, 5.0, 5.0, 4.0],
        lambda_return=[2.96875, 3.875, 5.5, 4.0],
        gae=[-5.03125, -0.125, 3.5, -2.0],
        vtrace_target=[-2.1875, 3.625, 2.5, 2.0],
        vtrace_advantage=[-10.375, -0.375, 0.5, -4.0],
        retrace=[2.84375, 3.375, 5.0, 4.0],
    ),
    Row(
        name="time limit in the last row",
        terminated=[0, 0, 0, 0],
        boundary=[0, 0, 0, 1],
        next_value=[4.0, 2.0, 6.0, 10.0],
        discounted=[3.875, 5.75, 7.5, 9.0],
        two_step=[2.5, 5.0, 7.5, 9.0],
        lambda_return=[3.046875, 4.1875, 6.75, 9.0],
        gae=[-4.953125, 0.1875, 4.75, 3.0],
        vtrace_target=[-2.03125, 3.9375, 3.75, 12.0],
        vtrace_advantage=[-10.0625, -0.0625, 1.75, 6.0],
        retrace=[2.921875, 3.6875, 7.5, 9.0],
    ),
    Row(
        name="terminated at once, then a time limit",
        terminated=[1, 0, 0, 0],
        boundary=[1, 0, 1, 0],
        next_value=[100.0, 2.0, 12.0, 10.0],
        discounted=[1.0, 6.5, 9.0, 9.0],
        two_step=[1.0, 6.5, 9.0, 9.0],
        lambda_return=[1.0, 4.75, 9.0, 9.0],
        gae=[-7.0, 0.75, 7.0, 3.0],
        vtrace_target=[-6.0, 3.9375, 3.75, 12.0],
        vtrace_advantage=[-14.0, -0.0625, 1.75, 6.0],
        retrace=[1.0, 3.875, 9.0, 9.0],
    ),
]


class Table(NamedTuple):
    """Rows as float32 tensors [rows, 4]."""

    reward: Tensor
    value: Tensor
    next_value: Tensor
    terminated: Tensor
    boundary: Tensor
    log_ratio: Tensor


def table(rows: list[Row]) -> Table:
    """The given rows' inputs, in the order of the rows."""
    return Table(
        reward=torch.tensor([REWARD] * len(rows)),
        value=torch.tensor([VALUE] * len(rows)),
        next_value=torch.tensor([row.next_value for row in rows]),
        terminated=torch.tensor([row.terminated for row in rows]).bool(),
        boundary=torch.tensor([row.boundary for row in rows]).bool(),
        log_ratio=torch.tensor([RATIO] * len(rows)).log(),
    )
