"""How a learning rate moves over a run, as a factor of its highest value."""

import math


def warmup_cosine(progress: float, warmup: float, final: float = 0.0) -> float:
    """Linearly up from 0 to 1 over the share ``warmup`` of the run, then half a cosine down to ``final``.

    ``progress`` goes from 0 at the first step to 1 at the last. Raises ValueError where warmup or final lies outside
    [0, 1]. Source: Loshchilov and Hutter 2017 (SGDR), equation 5, without restarts.
    """
    up, rest = _parts(progress, warmup, final)
    return up * (final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * rest)))


def warmup_linear(progress: float, warmup: float, final: float = 0.0) -> float:
    """Linearly up from 0 to 1, then linearly down to ``final``. Raises as :func:`warmup_cosine`."""
    up, rest = _parts(progress, warmup, final)
    return up * (1.0 + (final - 1.0) * rest)


def warmup_constant(progress: float, warmup: float) -> float:
    """Linearly up from 0 to 1 over the share ``warmup`` of the run, and then 1. Raises as :func:`warmup_cosine`."""
    return _parts(progress, warmup, 0.0)[0]


def _parts(progress: float, warmup: float, final: float) -> tuple[float, float]:
    """How much of the way up has been gone, and how much of the way behind it."""
    if not (0.0 <= warmup <= 1.0 and 0.0 <= final <= 1.0):
        raise ValueError(f"expected warmup and final within [0, 1], got {warmup} and {final}")
    if progress < warmup:
        return progress / warmup, 0.0
    return 1.0, min(1.0, (progress - warmup) / (1.0 - warmup)) if warmup < 1.0 else 0.0
