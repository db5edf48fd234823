"""Cheap checks of arguments: they look at Python numbers and shapes only, so that nothing waits for a device."""

from torch import Tensor


def in_unit_interval(**values: float | int) -> None:
    """Raises ValueError unless every number lies in [0, 1] (a NaN does not)."""
    for name, value in values.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must lie in [0, 1], got {value}.")


def positive(**values: float | int) -> None:
    """Raises ValueError unless every number is above 0 (a NaN is not)."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}.")


def same_shape(**tensors: Tensor) -> None:
    """Raises ValueError unless all tensors have the shape of the first: nothing here broadcasts in silence."""
    shapes = [tensor.shape for tensor in tensors.values()]
    if any(shape != shapes[0] for shape in shapes):
        listed = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"Expected tensors of one shape, got {listed}; expand or squeeze them first.")


def batch_time(**tensors: Tensor) -> None:
    """Raises ValueError unless all tensors have one shape [batch, time] with at least one step."""
    same_shape(**tensors)
    name, first = next(iter(tensors.items()))
    if first.dim() != 2 or first.shape[1] == 0:
        raise ValueError(f"Expected [batch, time] with time above 0, got {name} of shape {list(first.shape)}.")
