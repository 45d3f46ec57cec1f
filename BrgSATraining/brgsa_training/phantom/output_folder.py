"""An output folder that is gone on with by the options that it was made with, and no others."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brgsa.errors import InputError, UsageError
from brgsa.files import write_error, write_json


def claim(out: Path, file: str, options: Mapping[str, Any]) -> None:
    """Write options into a new folder, or find the same ones there.

    Args:
        file: name of the JSON file that keeps them.

    Raises:
        UsageError: the folder holds what other options made.
        InputError: the file is damaged.
        BrgSAError: the folder cannot be read or written.
    """
    path, wanted = out / file, json.loads(json.dumps(options))
    try:
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found != wanted:
                found = found if isinstance(found, dict) else {}
                differing = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
                raise UsageError(
                    f"{out} was made with other options ({', '.join(differing)}). "
                    "Choose another folder, or the same options to go on."
                )
            return
    except ValueError as error:
        raise InputError(f"{path} is damaged. Choose another folder, or delete this one and start again.") from error
    except OSError as error:
        raise write_error(out, error) from error
    write_json(path, wanted)
