"""Equality of float64 numbers but for rounding."""

from torch import Tensor
from torch.testing import assert_close


def assert_exact(actual: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    """Raises AssertionError where the two differ by more than rounding, in absolute terms."""
    assert_close(actual, expected, rtol=0.0, atol=atol)
