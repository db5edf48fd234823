"""PPO's surrogate over the probability ratio, for a good and a bad action, as `clipped_surrogate` computes it."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from torchward.functional.policy_losses import Surrogate, clipped_surrogate

DOCS = Path(__file__).resolve().parents[1]
CLIP, HIGH, DUAL = 0.2, 0.28, 3.0
VARIANTS: dict[str, dict[str, Any]] = {
    "clip 0.2": {"clip_low": CLIP, "clip_high": CLIP},
    "clip-higher 0.28": {"clip_low": CLIP, "clip_high": HIGH},
    "dual clip 3": {"clip_low": CLIP, "clip_high": CLIP, "dual_clip": DUAL},
}


def surrogate(ratio: torch.Tensor, advantage: float, variant: str) -> tuple[Surrogate, torch.Tensor]:
    """The surrogate at each ratio, and the objective's slope in the ratio there."""
    log_prob = ratio.log().requires_grad_()
    result = clipped_surrogate(
        log_prob, torch.zeros_like(ratio), torch.full_like(ratio, advantage), **VARIANTS[variant]
    )
    (slope,) = torch.autograd.grad(-result.loss.sum(), log_prob)
    return result, slope / ratio


def measure() -> list[dict[str, Any]]:
    """Objective and slope at some ratios, for each sign of the advantage and each variant."""
    ratios = torch.tensor([0.5, 0.9, 1.0, 1.1, 1.25, 2.0, 4.0], dtype=torch.float64)
    rows = []
    for advantage in (1.0, -1.0):
        for name in VARIANTS:
            result, slope = surrogate(ratios, advantage, name)
            rows.append(
                {
                    "advantage": advantage,
                    "variant": name,
                    "ratio": ratios.tolist(),
                    "objective": (-result.loss).tolist(),
                    "slope": slope.tolist(),
                }
            )
    return rows


def draw(out: Path) -> None:
    """Two panels: the objective to be raised, for A = 1 and for A = -1."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, panels = plt.subplots(1, 2)
    looks = {"clip 0.2": ("C0", "-", 2.6), "clip-higher 0.28": ("C1", "--", 1.8), "dual clip 3": ("C2", "-.", 1.8)}
    for axes, advantage, top in zip(panels, (1.0, -1.0), (2.0, 4.5), strict=True):
        ratio = torch.linspace(0.01, top, 600, dtype=torch.float64)
        axes.plot(ratio, advantage * ratio, ":", color="0.45", linewidth=1.4, label="no clip")
        for name in VARIANTS:
            if (name == "dual clip 3") == (advantage < 0) or name == "clip 0.2":  # elsewhere they are the same line
                colour, line, width = looks[name]
                values = -surrogate(ratio, advantage, name)[0].loss.detach()
                axes.plot(ratio, values, line, color=colour, linewidth=width, label=name)
        axes.plot(1.0, advantage, "o", color="black", markersize=6)
        axes.set(xlabel=r"ratio $\pi(a|s) / \pi_{old}(a|s)$", title=f"advantage A = {'+' if advantage > 0 else '−'}1")
        axes.legend(loc="lower right" if advantage > 0 else "lower left")
    panels[0].set(ylabel="surrogate objective", ylim=(0, 2), xlim=(0, 2))
    panels[1].set(ylim=(-4.5, 0), xlim=(0, 4.5))
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Compute, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "clipping.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "clipping.json")
    options = parser.parse_args(args)
    rows = measure()
    print(f"{'A':>3} {'slope in the ratio at':<22}" + "".join(f"{ratio:>6g}" for ratio in rows[0]["ratio"]))
    for row in rows:
        print(f"{row['advantage']:+3.0f} {row['variant']:<22}" + "".join(f"{slope:6.0f}" for slope in row["slope"]))
    options.data.write_text(json.dumps(rows, indent=1) + "\n")
    draw(options.out)


if __name__ == "__main__":
    main()
