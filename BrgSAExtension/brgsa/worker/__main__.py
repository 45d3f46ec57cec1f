"""`python -m brgsa.worker`: what Slicer starts."""

import sys

from brgsa.worker.server import main

if __name__ == "__main__":
    sys.exit(main())
