"""The files of a tokenizer, checked before transformers reads them: a stranger wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import T2VError
from ..foreign import MOST_JSON, quoted, read_json_file

_MOST_TOKENS = 1 << 20
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json")
_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


def check_tokenizer(folder: Path) -> None:
    """Check the forms and sizes of the files in a tokenizer's folder; those that are missing are passed over.

    Raises:
        T2VError: where one is too long, is no JSON, or holds values of another form.
    """
    vocabulary = _object(folder / "vocab.json")
    if len(vocabulary) > _MOST_TOKENS or not all(_is_id(number) for number in vocabulary.values()):
        raise _unusable(folder / "vocab.json", "a number for each token is wanted")
    merges = folder / "merges.txt"
    if merges.is_file() and merges.stat().st_size > MOST_JSON:
        raise _unusable(merges, f"{merges.stat().st_size:,} bytes are too many")
    for name in _SETTINGS:
        values = _object(folder / name)
        for key in _TOKENS:
            token = values.get(key, "")
            token = token.get("content") if isinstance(token, dict) else token
            if token is not None and (not isinstance(token, str) or len(token) > 1000):
                raise _unusable(folder / name, f"its {key} is {quoted(token)}, and a text is wanted")
        length = values.get("model_max_length", 77)
        if length is not None and (not isinstance(length, (int, float)) or not length >= 1):
            raise _unusable(folder / name, f"its model_max_length is {quoted(length)}, and a number is wanted")
        added = values.get("added_tokens_decoder", {})
        if (
            not isinstance(added, dict)
            or len(added) > 10_000
            or not all(key.isdecimal() and len(key) < 8 for key in added)
        ):
            raise _unusable(folder / name, "its added_tokens_decoder has another form")
        if name == "added_tokens.json" and (
            len(values) > 10_000 or not all(_is_id(number) for number in values.values())
        ):
            raise _unusable(folder / name, "a number for each token is wanted")


def _object(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where there is no such file."""
    try:
        values = read_json_file(path) if path.exists() else {}
    except T2VError as error:
        raise _unusable(path, quoted(error, 400)) from error
    if not isinstance(values, dict):
        raise _unusable(path, "a JSON object is wanted")
    return values


def _is_id(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2 * _MOST_TOKENS


def _unusable(path: Path, why: str) -> T2VError:
    return T2VError(f"{path} is no file of a tokenizer ({why}): put CLIP's vocab.json and merges.txt in its folder.")
