"""The rows of the abnormality editor: what the table shows, what can be done to them, what may be scored.

Pure Python; `abnormality_table.py` shows it.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from brgsa.abnormalities import Abnormality, AbnormalityList
from brgsa.errors import BrgSAError

PROMPT_SEPARATOR = " | "
EDITED = " (edited)"  # ends the name of a list that is not as it was loaded, so that no table claims a preset it is not
UNDO_STEPS = 100


@dataclass(frozen=True)
class Row:
    """One line of the editor, which may be wrong while it is being typed.

    Attributes:
        name, prompt: as typed; several prompts are separated by " | "; an empty prompt means "There is NAME".
        on: whether it is scored.
        more: fields of the abnormality that the table does not show (codes, group, threshold, negative prompts).
    """

    name: str
    prompt: str = ""
    on: bool = True
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def shown_prompt(self) -> str:
        return self.prompt or f"There is {self.name}"

    def fields(self) -> dict[str, Any]:
        """The abnormality as the JSON format has it."""
        prompts = [part.strip() for part in self.prompt.split("|") if part.strip()]
        return {"name": self.name, **({"prompts": prompts} if prompts else {}), **self.more}

    @classmethod
    def of(cls, fields: dict[str, Any], on: bool = True) -> "Row":
        more = {key: value for key, value in fields.items() if key not in ("name", "prompts")}
        return cls(fields["name"], PROMPT_SEPARATOR.join(fields.get("prompts", ())), on, more)


class AbnormalityRows:
    """An abnormality list under edit, with undo.

    Args:
        changed: called after every change.
    """

    def __init__(self, changed: Callable[[], None] = lambda: None):
        self.name = "custom"
        self.rows: tuple[Row, ...] = ()
        self._changed = changed
        self._past: list[tuple[str, tuple[Row, ...]]] = []

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def preset(self) -> str:
        """The name of the list that this one began as."""
        return self.name.removesuffix(EDITED)

    @property
    def can_undo(self) -> bool:
        return bool(self._past)

    def load(self, abnormalities: AbnormalityList) -> None:
        """Replace everything by a list."""
        self._set((Row.of(each.to_dict()) for each in abnormalities), abnormalities.name)

    def add(self, names: Iterable[str], after: int | None = None) -> list[int]:
        """Insert a row for each name (or "NAME<tab>PROMPT") that is not there yet; return their positions."""
        known = {row.name.casefold() for row in self.rows}
        new = []
        for line in names:
            name, _, prompt = line.partition("\t")
            name = " ".join(name.split())
            if name and name.casefold() not in known:
                known.add(name.casefold())
                new.append(Row(name, " ".join(prompt.split())))
        if new:
            start = len(self.rows) if after is None else after + 1
            self._set((*self.rows[:start], *new, *self.rows[start:]))
            return list(range(start, start + len(new)))
        return []

    def add_blank(self) -> int:
        """Append a row with a name that is free, ready to be overwritten; return its position."""
        return self.add([self._free_name("New abnormality")])[0]

    def remove(self, positions: Iterable[int]) -> None:
        """Remove rows."""
        gone = set(positions)
        if gone:
            self._set((row for n, row in enumerate(self.rows) if n not in gone))

    def duplicate(self, position: int) -> int:
        """Copy a row under a free name; return the copy's position."""
        row = self.rows[position]
        copy = replace(row, name=self._free_name(row.name), prompt=row.shown_prompt)
        self._set((*self.rows[: position + 1], copy, *self.rows[position + 1 :]))
        return position + 1

    def move(self, position: int, by: int) -> int:
        """Move a row up (-1) or down (+1); return its new position."""
        target = min(max(position + by, 0), len(self.rows) - 1)
        if target != position:
            rows = list(self.rows)
            rows.insert(target, rows.pop(position))
            self._set(rows)
        return target

    def edit(self, position: int, **values: Any) -> None:
        """Change fields of one row (`name`, `prompt`, `on`)."""
        row = replace(self.rows[position], **values)
        if row.prompt == f"There is {row.name}":
            row = replace(row, prompt="")
        if row != self.rows[position]:
            self._set((*self.rows[:position], row, *self.rows[position + 1 :]))

    def switch(self, on: bool) -> None:
        """Switch every row on or off."""
        if any(row.on != on for row in self.rows):
            self._set(replace(row, on=on) for row in self.rows)

    def undo(self) -> None:
        """Take the last change back."""
        if self._past:
            self.name, self.rows = self._past.pop()
            self._changed()

    def problems(self) -> dict[int, str]:
        """What is wrong with which row, in one sentence each; rows that are switched off are not judged."""
        found: dict[int, str] = {}
        first: dict[str, int] = {}
        for n, row in enumerate(self.rows):
            if not row.on:
                continue
            try:
                key = Abnormality(**row.fields()).name.casefold()
                if key in first:
                    found[n] = f'Row {first[key] + 1} has the name "{row.name}" already.'
                first.setdefault(key, n)
            except BrgSAError as error:
                text = str(error)
                found[n] = text[:1].upper() + text[1:]
        return found

    def to_list(self, only_on: bool = True) -> AbnormalityList:
        """The rows that are switched on and right, as a list.

        Raises:
            UsageError: there are none.
        """
        wrong = self.problems()
        rows = [row for n, row in enumerate(self.rows) if n not in wrong and (row.on or not only_on)]
        return AbnormalityList(self.name, tuple(Abnormality(**row.fields()) for row in rows))

    def to_json(self) -> str:
        """Everything, for the parameter node."""
        rows = [{**row.fields(), **({} if row.on else {"on": False})} for row in self.rows]
        return json.dumps({"name": self.name, "rows": rows}, ensure_ascii=True)

    def load_json(self, text: str) -> None:
        """Take over what `to_json` gave, without a step of undo. Anything else is ignored.

        The text comes from a scene file that anyone may have written.
        """
        try:
            content = json.loads(text)
            rows = []
            for each in content["rows"]:
                on = bool(each.pop("on", True))
                rows.append(Row.of({**each, "name": str(each["name"])}, on))
            self.name, self.rows, self._past = str(content["name"]), tuple(rows), []
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        self._changed()

    def _free_name(self, name: str) -> str:
        known = {row.name.casefold() for row in self.rows}
        candidates = (name if n == 1 else f"{name} {n}" for n in range(1, len(known) + 2))
        return next(each for each in candidates if each.casefold() not in known)

    def _set(self, rows: Iterable[Row], name: str | None = None) -> None:
        self._past = [*self._past[-UNDO_STEPS + 1 :], (self.name, self.rows)]
        self.name, self.rows = name or self.preset + EDITED, tuple(rows)
        self._changed()
