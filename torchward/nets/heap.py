"""Memory that is freed is kept, where the C library would give it back to the system after every minibatch."""

import torch

_LARGEST = 2**25 - 2**13  # glibc looks at blocks of up to 32 MiB only, its own header included


def keep_freed() -> None:
    """Tell glibc's allocator to keep up to 64 MiB of what is freed.

    It hands large blocks back at once, and each of their pages, asked for again, costs an interrupt: of an update of
    SAC on a CPU that was a twentieth of the time (docs/log.md). But once a large block was freed it takes such blocks
    for passing ones, and keeps what is smaller (``mallopt(3)``, M_MMAP_THRESHOLD). So one is freed here, never touched.
    Other allocators are not disturbed."""
    torch.empty(_LARGEST, dtype=torch.uint8)
