"""What the two ends of the worker's pipes agree on; docs/worker-protocol.md is its description.

Only the standard library, because one end runs inside 3D Slicer.
"""

PROTOCOL_VERSION = 1

# The code of an error answer for each exit code of `brgsa.errors`.
ERROR_CODES = {1: "failed", 2: "usage", 3: "input", 4: "setup", 5: "out-of-memory", 6: "failed"}
CANCELLED = "cancelled"
NOT_AVAILABLE = "not-available"
UNEXPECTED = "unexpected"
NO_SCAN = "no-scan"

# What helps when memory runs out, as the options of the next `score` request.
MEMORY_SUGGESTIONS = {
    "cpu": {"device": "cpu"},
    "half": {"precision": "bf16"},
}
