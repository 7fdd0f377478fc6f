"""Texts inside a video file (the workflow, the prompt), at the places where ComfyUI's graph editor reads them.

mp4, mov, webm and mkv hold it as container tags, which ffmpeg writes and reads as an ffmetadata text; animated WebP as
EXIF entries "key:text"; PNG as a text chunk; GIF as a comment that holds JSON. The last three are written here, because
Pillow would encode the frames again.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import T2VError
from ..foreign import parse_json
from ..texts import strict_json

log = logging.getLogger(__name__)

PRIVATE = "t2v_"
"""The prefix of keys for what the container cannot store: the exact frame rate, the size before padding."""

_CONTAINERS_OWN = {"major_brand", "minor_version", "compatible_brands", "encoder", "creation_time", "duration"}
_KEY = re.compile(r"[a-z][a-z0-9_]{0,63}")

MOST_TEXT = 64 << 20
"""Bytes of all texts of one file that are unpacked, kept or written."""
_MOST_PARTS = 100_000
"""Chunks and entries of one file that are looked at for texts."""


def too_many_texts(path: Path) -> None:
    """Log that the texts of a file are beyond `MOST_TEXT`."""
    log.warning("%s holds more than %d MB of texts: they are not read.", path.name, MOST_TEXT >> 20)


class _TooMuch(ValueError):
    """The texts of a file are beyond `MOST_TEXT` or `_MOST_PARTS`."""


class _Room:
    """Counts what the texts of one file take, of all its parts together."""

    def __init__(self) -> None:
        self.left, self.parts = MOST_TEXT, _MOST_PARTS

    def visit(self) -> None:
        self.parts -= 1
        if self.parts < 0:
            raise _TooMuch

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise _TooMuch

    def unpack(self, packed: bytes) -> bytes:
        """Return zlib's unpacked bytes, of which no more are made than there is room for."""
        text = zlib.decompressobj().decompress(packed, self.left + 1)
        self.take(len(text))
        return text


def checked(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    """Check the keys and values of metadata, and convert every value that is no text to JSON.

    Raises:
        T2VError: where some container could not store a key or a value.
    """
    texts = {}
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not _KEY.fullmatch(key) or key.startswith(PRIVATE) or key in _CONTAINERS_OWN:
            raise T2VError(
                f"Metadata cannot be stored under {key!r}: use a name of small letters, digits and underscores."
            )
        text = value if isinstance(value, str) else json_text(value)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise T2VError(f"The metadata {key!r} holds half of a surrogate pair, which is no text.") from error
        if "\0" in text:
            raise T2VError(f"The metadata {key!r} holds a NUL character, which no container can store.")
        texts[key] = text
    return texts


def json_text(value: Any) -> str:
    """Write a value as JSON in pure ASCII, with the braces inside strings escaped.

    The graph editor finds the end of a webm's workflow by counting braces, those inside strings too, and reads PNG text
    byte by byte; text in this form is read alike by every editor and from every container.
    """
    text = strict_json(value)
    return re.sub(r'"(?:[^"\\]|\\.)*"', lambda m: m[0].replace("{", "\\u007b").replace("}", "\\u007d"), text)


# -- ffmetadata: mp4, mov, webm, mkv ----------------------------------------------------------------------------------


def ffmetadata(texts: Mapping[str, str]) -> bytes:
    """Write the text file from which ffmpeg takes a container's tags."""
    escapes = str.maketrans({character: "\\" + character for character in "\\=;#\n\r"})
    return (";FFMETADATA1\n" + "".join(f"{key}={text.translate(escapes)}\n" for key, text in texts.items())).encode()


def parse_ffmetadata(data: bytes) -> dict[str, str]:
    """Parse a container's tags from what ffmpeg prints: keys in small letters, without those that every container has.

    A stream's or a chapter's section ends the tags; tags after the first 100,000 are left out.
    """
    texts: dict[str, str] = {}
    for line in itertools.islice(_logical_lines(data), _MOST_PARTS):
        if line.startswith(b"["):
            break
        if match := re.match(rb"((?:[^\\=;#]|\\.){1,256})=", line, re.DOTALL):
            texts[_unescaped(match[1]).lower()] = _unescaped(line[match.end() :])
    return own_tags(texts)


def own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return a container's tags without those that every container has."""
    return {key: text for key, text in tags.items() if key not in _CONTAINERS_OWN}


def limited_tags(path: Path, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of the file at path with keys in small letters, as `parse_ffmetadata` does; {} where they are too long."""
    if sum(len(key) + len(text) for key, text in tags.items()) > MOST_TEXT:
        too_many_texts(path)
        return {}
    return own_tags({key.lower(): text for key, text in itertools.islice(tags.items(), _MOST_PARTS)})


def _logical_lines(data: bytes) -> Iterator[bytes]:
    """Split into lines, where a newline behind a backslash belongs to the text."""
    begin = end = 0
    while end < len(data):
        end = data.find(b"\n", end)
        end = len(data) if end < 0 else end
        guards = end
        while guards > begin and data[guards - 1] == 0x5C:  # a backslash
            guards -= 1
        if (end - guards) % 2 == 0 or end == len(data):
            yield data[begin:end]
            begin = end + 1
        end += 1


def _unescaped(data: bytes) -> str:
    parts = data.split(b"\\\\")  # pairs of backslashes are backslashes; a single one only guards what follows
    return b"\\".join(part.replace(b"\\", b"") for part in parts).decode("utf-8", "replace")


# -- PNG, WebP, GIF ---------------------------------------------------------------------------------------------------


def embed(path: Path, texts: Mapping[str, str]) -> None:
    """Write texts into the PNG, WebP or GIF file at path, in place."""
    if not texts:
        return
    with open(path, "r+b") as file:
        head = file.read(16)
        if head.startswith(b"\x89PNG"):
            _embed_png(file, texts)
        elif head.startswith(b"RIFF"):
            _embed_webp(file, texts)
        elif head.startswith(b"GIF8"):
            _embed_gif(file, texts)
        else:
            raise T2VError(f"{path.name} is no PNG, WebP or GIF.")


def read_embedded(path: Path) -> dict[str, str]:
    """Read the texts that `embed`, ComfyUI or Pillow have written into a PNG, WebP or GIF file; {} for any other file."""
    with open(path, "rb") as file:
        head = file.read(16)
        room = _Room()
        try:
            if head.startswith(b"\x89PNG"):
                return dict(_read_png(file, room))
            if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
                return _read_webp(file, room)
            if head.startswith(b"GIF8"):
                return _read_gif(file)
        except _TooMuch:
            too_many_texts(path)
        except (struct.error, IndexError, ValueError, OSError, zlib.error):
            pass
    return {}


def _png_text_chunks(texts: Mapping[str, str]) -> bytes:
    """Write tEXt chunks for ASCII, which every reader supports, and iTXt chunks for the rest."""
    chunks = b""
    for key, text in texts.items():
        kind, body = (b"tEXt", key.encode() + b"\0") if text.isascii() else (b"iTXt", key.encode() + b"\0\0\0\0\0")
        chunks += png_chunk(kind, body + text.encode())
    return chunks


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Write a chunk: length, kind, body and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _embed_png(file: BinaryIO, texts: Mapping[str, str]) -> None:
    file.seek(33)  # after the signature (8) and IHDR (25)
    rest = file.read()
    file.seek(33)
    file.write(_png_text_chunks(texts) + rest)


def _read_png(file: BinaryIO, room: _Room) -> Iterator[tuple[str, str]]:
    file.seek(8)
    while len(head := file.read(8)) == 8:
        room.visit()
        size, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return
        if kind not in (b"tEXt", b"iTXt", b"zTXt"):
            file.seek(size + 4, os.SEEK_CUR)
            continue
        room.take(size)
        key, _, text = file.read(size + 4)[:-4].partition(b"\0")
        if kind == b"zTXt":
            text = room.unpack(text[1:])
        if kind == b"iTXt":
            packed, text = text[0], text[2:].split(b"\0", 2)[2]
            text = room.unpack(text) if packed else text
        yield key.decode("latin-1"), text.decode("utf-8", "replace")


def _embed_webp(file: BinaryIO, texts: Mapping[str, str]) -> None:
    file.seek(12)
    if file.read(4) != b"VP8X":
        _animate(file)
    file.seek(20)
    flags = file.read(1)[0]
    file.seek(20)
    file.write(bytes([flags | 0x08]))  # "has EXIF"
    exif = _exif(texts)
    file.seek(0, os.SEEK_END)
    file.write(b"EXIF" + struct.pack("<I", len(exif)) + exif + b"\0" * (len(exif) % 2))
    size = file.tell()
    file.seek(4)
    file.write(struct.pack("<I", size - 8))


def _animate(file: BinaryIO) -> None:
    """Turn a WebP of one plain picture into an animation of one frame, which has a header that can hold metadata."""
    file.seek(12)
    picture = file.read()
    if picture.startswith(b"VP8L"):
        bits = struct.unpack_from("<I", picture, 9)[0]
        width, height = bits & 0x3FFF, bits >> 14 & 0x3FFF  # both less one
    else:
        width, height = (side - 1 & 0x3FFF for side in struct.unpack_from("<HH", picture, 14))
    area = struct.pack("<I", width)[:3] + struct.pack("<I", height)[:3]
    frame = bytes(6) + area + (1000).to_bytes(3, "little") + b"\x02" + picture  # no blending
    chunks = ((b"VP8X", b"\x02\0\0\0" + area), (b"ANIM", b"\0\0\0\0\0\0"), (b"ANMF", frame))
    body = b"".join(kind + struct.pack("<I", len(data)) + data for kind, data in chunks)
    file.seek(12)
    file.write(body)


_EXIF_TAGS = (0x0110, 0x010F, 0x010E, 0x010D, 0x013B, 0x8298, 0x0131, 0x013C)
"""EXIF tags in the order in which they are used; ComfyUI's own come first: Model holds the prompt, Make the workflow."""

MOST_WEBP_TEXTS = len(_EXIF_TAGS)
"""The most texts that a WebP file holds."""


def _exif(texts: Mapping[str, str]) -> bytes:
    order = sorted(texts, key=lambda key: {"prompt": 0, "workflow": 1}.get(key, 2))
    entries = sorted((tag, f"{key}:{texts[key]}".encode() + b"\0") for tag, key in zip(_EXIF_TAGS, order, strict=False))
    place = 8 + 2 + 12 * len(entries) + 4
    table, values = struct.pack("<H", len(entries)), b""
    for tag, value in entries:
        table += struct.pack("<HHII", tag, 2, len(value), place + len(values))
        values += value + b"\0" * (len(value) % 2)
    return b"II*\0" + struct.pack("<I", 8) + table + struct.pack("<I", 0) + values


def _read_webp(file: BinaryIO, room: _Room) -> dict[str, str]:
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, size = struct.unpack("<4sI", head)
        if kind == b"EXIF":
            room.take(size)
            return _read_exif(file.read(size).removeprefix(b"Exif\0\0"), room)
        file.seek(size + size % 2, os.SEEK_CUR)
    return {}


def _read_exif(exif: bytes, room: _Room) -> dict[str, str]:
    order = "<" if exif[:2] == b"II" else ">"
    start = struct.unpack_from(order + "I", exif, 4)[0]
    texts = {}
    for index in range(struct.unpack_from(order + "H", exif, start)[0]):
        _, kind, size, place = struct.unpack_from(order + "HHII", exif, start + 2 + 12 * index)
        if kind == 2 and size > 4:
            value = exif[place : place + size]
            room.take(len(value))  # entries may name one place many times
            key, colon, text = value.rstrip(b"\0").decode("utf-8", "replace").partition(":")
            if colon:
                texts[key.lower()] = text
    return texts


_GIF_MARK = b'{"t2v":'


def _embed_gif(file: BinaryIO, texts: Mapping[str, str]) -> None:
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b";":
        raise T2VError("This GIF has no end mark, so it cannot hold metadata.")
    file.seek(-1, os.SEEK_END)
    comment = _GIF_MARK + strict_json(dict(texts)).encode() + b"}"
    blocks = [comment[i : i + 255] for i in range(0, len(comment), 255)]
    file.write(b"!\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0;")


def _read_gif(file: BinaryIO) -> dict[str, str]:
    """Read the texts of our own comment; {} where there is none, or it has another form."""
    comments = [data for kind, data in gif_blocks(file) if kind == 0xFE and data]
    try:
        texts = parse_json(comments[-1], "the comment")["t2v"] if comments else {}
    except (T2VError, KeyError, TypeError):
        return {}
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        return {}
    return texts


def gif_blocks(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield (label, data) of every block of a GIF, with the data of our own comments only; the end mark is (0x3B, b"").

    Raises:
        IndexError: where the file ends inside a block, or consists of blocks of a few bytes.
    """
    room, parts = MOST_TEXT, _MOST_PARTS + (os.fstat(file.fileno()).st_size >> 6)
    file.seek(10)
    flags = file.read(3)[0]
    file.seek(3 << (flags & 7) + 1 if flags & 0x80 else 0, os.SEEK_CUR)
    while mark := file.read(1):
        if mark == b";":
            yield 0x3B, b""
            return
        label = 0x2C
        if mark == b"!":
            label = file.read(1)[0]
        elif mark == b",":
            flags = file.read(9)[8]
            file.seek((3 << (flags & 7) + 1 if flags & 0x80 else 0) + 1, os.SEEK_CUR)
        else:
            return
        data = bytearray()
        while size := file.read(1)[0]:
            block = file.read(size)
            if len(block) < size or (parts := parts - 1) < 0:
                raise IndexError
            if label == 0xFE and (data or block.startswith(_GIF_MARK)) and (room := room - size) >= 0:
                data += block
        yield label, bytes(data)
