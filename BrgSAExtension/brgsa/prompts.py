"""From an abnormality's prompts to the token ids that the text encoder reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from brgsa.errors import SetupError, UsageError
from brgsa.text import clean, shorten, words

if TYPE_CHECKING:
    import numpy as np

    from brgsa.abnormalities import Abnormality

PromptStyle = Literal["single", "pair", "ensemble"]
TEMPLATES_FILE = Path(__file__).parent / "data" / "prompt-templates.json"


def prompt_sets(abnormality: Abnormality, style: PromptStyle = "single") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the positive and the negative prompts of one abnormality; the scorer averages embeddings within each.

    `single` gives the abnormality's own prompts, as the released model uses them, and no negative ones; `pair` adds
    its negative prompts; `ensemble` adds the phrases of `data/prompt-templates.json` to its own prompts and has no
    negative ones. Prompts that read the same after cleaning are kept once.

    Raises:
        UsageError: the style is unknown.
    """
    if style == "single":
        return abnormality.prompts, ()
    if style == "pair":
        return abnormality.prompts, abnormality.negative_prompts
    if style == "ensemble":
        phrases = (template.replace("{name}", abnormality.name) for template in prompt_templates())
        return tuple({clean(prompt): prompt for prompt in (*phrases, *abnormality.prompts)}.values()), ()
    raise UsageError(f'no prompt style "{style}". Styles: {", ".join(get_args(PromptStyle))}.')


def prompt_templates() -> list[str]:
    """Return the phrases of the prompt style `ensemble`; `{name}` in each stands for the abnormality."""
    return json.loads(TEMPLATES_FILE.read_text(encoding="utf-8"))["templates"]


class PromptTokenizer:
    """Cleans prompts and turns them into WordPiece ids, as BERT's own tokenizer does.

    Args:
        vocabulary: one word piece per line, `vocab.txt` of a weights folder.
        max_length: longest sequence in tokens, [CLS] and [SEP] included; what is longer is cut. 97 in the released
            model.

    Raises:
        SetupError: the vocabulary is missing, unreadable or not one of BERT.
    """

    def __init__(self, vocabulary: str | Path, max_length: int) -> None:
        from tokenizers import BertWordPieceTokenizer

        self.max_length = max_length
        ids = read_vocabulary(Path(vocabulary))
        self.pad_id, self.unknown_id, self._first_id, self._last_id = (
            ids[token] for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
        )
        self.size = max(ids.values()) + 1
        self._word_pieces = BertWordPieceTokenizer(ids, lowercase=True)

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Clean `texts` and return their ids and attention mask, both (N, L) int64, L the longest of these texts.

        Each row is [CLS] pieces [SEP] and padding; pieces beyond `max_length - 2` are cut.
        """
        import numpy as np

        rows = [
            [self._first_id, *self._pieces(clean(text)).ids[: self.max_length - 2], self._last_id] for text in texts
        ]
        shape = (len(rows), max((len(row) for row in rows), default=0))
        ids, mask = np.full(shape, self.pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for n, row in enumerate(rows):
            ids[n, : len(row)] = row
            mask[n, : len(row)] = 1
        return ids, mask

    def warnings(self, texts: Sequence[str]) -> list[str]:
        """Return one line for each text that the model reads otherwise than it is written.

        That is: changed by the cleaning, longer than `max_length`, or with words that the vocabulary does not hold.
        """
        lines = []
        for text in texts:
            cleaned = clean(text)
            pieces = self._pieces(cleaned)
            if cleaned.split() != words(text):
                lines.append(f'prompt "{shorten(text)}" reaches the model as "{shorten(cleaned)}"')
            if len(pieces.ids) > self.max_length - 2:
                end = pieces.offsets[self.max_length - 3][1]
                lines.append(
                    f'prompt "{shorten(text)}" has {len(pieces.ids)} word pieces and is cut to {self.max_length - 2}, '
                    f'after "… {" ".join(cleaned[:end].split()[-4:])}"'
                )
            unknown = [
                cleaned[start:end]
                for piece, (start, end) in zip(pieces.ids, pieces.offsets, strict=True)
                if piece == self.unknown_id
            ]
            if unknown:
                listed = shorten(", ".join(f'"{word}"' for word in dict.fromkeys(unknown)))
                lines.append(f'prompt "{shorten(text)}" has words that the vocabulary of these weights lacks: {listed}')
        return lines

    def _pieces(self, cleaned: str):
        return self._word_pieces.encode(cleaned, add_special_tokens=False)


def read_vocabulary(path: Path) -> dict[str, int]:
    """Read the word pieces of a `vocab.txt` and their ids.

    Raises:
        SetupError: the file is missing, unreadable or not one of BERT.
    """
    try:
        # Only "\n" ends a line: some vocabularies hold pieces that other line breaks would split.
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError as error:
        raise SetupError(f"no vocabulary {path}. Import the weights again.") from error
    except OSError as error:
        raise SetupError(f"cannot read the vocabulary {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise SetupError(f"the vocabulary {path} is damaged (not UTF-8 text). Import the weights again.") from error
    ids = {piece.removesuffix("\r"): n for n, piece in enumerate(lines)}
    missing = [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if token not in ids]
    if missing:
        raise SetupError(
            f"the vocabulary {path} lacks {', '.join(missing)}, so it is not one of BERT. Import the weights again."
        )
    return ids
