"""What is freed is kept: pages that are asked for again cost no interrupt."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import torch
from torchward.nets.heap import keep_freed

torch.set_num_threads(1)
keep_freed()
for count in (3, 10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        blocks = [torch.ones(2**17) for _ in range(16)]  # 128 pages each
        del blocks
    faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / count
print(faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives memory back so eagerly")
def test_what_is_freed_is_kept() -> None:
    """Without the call it is most of 2048 pages again and again, in seven processes of eight: it depends on where the
    system puts the heap."""
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 100
