"""QuerYD's pickles, read without running code in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..checkpoints.pickles import load
from ..errors import T2VError
from ..foreign import Budget
from .clips import Clip, Faults, checked, find_video

CONFIDENCE = 0.5
"""Spans of less confidence are left out."""
_MOST = 256 << 20
"""Bytes of a pickle that are read."""


def _pickle(folder: Path, begin: str) -> Path | None:
    return next(iter(sorted(folder.glob(f"{begin}*.pkl"))), None)


def is_queryd(folder: Path) -> bool:
    """Whether a folder holds QuerYD's captions and times."""
    return _pickle(folder, "raw_captions_") is not None and _pickle(folder, "times_captions_") is not None


def queryd(folder: Path, faults: Faults) -> Iterator[Clip]:
    """Yield the clips of QuerYD, Oncescu et al. 2021 (arXiv:2011.11071): captions, spans and confidences by video."""
    texts, times, sure = (
        _read(_pickle(folder, f"{part}_")) for part in ("raw_captions", "times_captions", "confidence")
    )
    for name, captions in texts.items():
        spans: Any = times.get(name)
        confidences = sure.get(name)
        whole = isinstance(captions, (list, tuple)) and isinstance(spans, (list, tuple)) and len(captions) == len(spans)
        if not whole:
            faults.add("damaged rows", name)
            continue
        found = find_video(folder, name, faults)
        for index, (words, span) in enumerate(zip(captions, spans, strict=True) if found else ()):
            if not _is_sure(confidences, index):
                faults.add("of low confidence", name)
            elif not isinstance(span, (list, tuple)) or len(span) != 2:
                faults.add("with an impossible span", name)
            elif clip := checked(folder, found, _text(words), faults, *span):
                yield clip


def _is_sure(confidences: Any, index: int) -> bool:
    """Whether a span's confidence is high enough; it is where none is given."""
    if not isinstance(confidences, (list, tuple)) or index >= len(confidences):
        return True
    return not isinstance(confidences[index], (int, float)) or confidences[index] >= CONFIDENCE


def _text(words: Any) -> Any:
    """Join a caption that is a list of words."""
    return " ".join(map(str, words)) if isinstance(words, (list, tuple)) else words


def _read(path: Path | None) -> dict[str, Any]:
    """Read a pickle of texts and numbers by video; empty where there is none."""
    if path is None:
        return {}
    try:
        if path.stat().st_size > _MOST:
            raise T2VError(f"{path} is larger than the {_MOST:,} bytes that are read of captions.")
        value, _ = load(path.read_bytes(), Budget(path))
    except OSError as error:
        raise T2VError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error
    except T2VError as error:
        raise T2VError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise T2VError(f"{path} holds no captions by video: download it again.")
    return value
