"""`python -m brgsa`, which is how a 3D Slicer user without console scripts calls the command."""

import sys

from brgsa.cli import main

sys.exit(main())
