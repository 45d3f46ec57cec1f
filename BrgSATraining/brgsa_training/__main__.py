"""`python -m brgsa_training`, for where there are no console scripts."""

import sys

from brgsa_training.cli import main

sys.exit(main())
