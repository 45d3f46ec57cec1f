"""`python -m brgsa`, which is how a 3D Slicer user without console scripts calls the command."""

import sys

from brgsa.commands.main import main

sys.exit(main())
