"""Calibration: a table by hand, and what is said honestly is found honest."""

import pytest
import torch

from torchward.functional.calibration import reliability


def test_a_table_by_hand() -> None:
    said = torch.tensor([0.1, 0.3, 0.6, 0.8, 1.0])
    came = torch.tensor([False, True, True, True, False])
    table = reliability(said, came, bins=2)
    assert table.size.tolist() == [2, 3]
    assert table.said.tolist() == pytest.approx([0.2, 0.8])
    assert table.came.tolist() == pytest.approx([0.5, 2 / 3])
    assert table.error == pytest.approx(0.4 * 0.3 + 0.6 * (0.8 - 2 / 3))


def test_honest_probabilities_have_a_small_error_and_bold_ones_a_large_one() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(20_000, generator=generator)
    came = torch.rand(20_000, generator=generator) < truth
    assert reliability(truth, came).error < 0.01
    assert reliability((truth > 0.5).float(), came).error > 0.2


def test_what_is_no_probability_is_told() -> None:
    with pytest.raises(ValueError, match="probabilities within"):
        reliability(torch.tensor([1.2]), torch.tensor([True]))
