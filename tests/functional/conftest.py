"""A fixture for the functions' own errors: users have no run-time check of annotations in front of them."""

from collections.abc import Iterator

import jaxtyping
import pytest


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Turns the tests' check of annotations off, so that a bad argument reaches the function as a user's would."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
