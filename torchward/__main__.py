"""`python -m torchward`."""

import sys

from torchward.cli import main

sys.exit(main())
