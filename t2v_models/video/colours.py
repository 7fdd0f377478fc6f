"""What a file says of its pictures, as ffmpeg filters: interlacing, colour matrix, HDR curves."""

from __future__ import annotations

import logging
from pathlib import Path

from .probe import VideoInfo

log = logging.getLogger(__name__)

SCALER = "accurate_rnd+full_chroma_int+full_chroma_inp+lanczos"
"""Flags with which swscale converts between RGB and YUV without a drift; lanczos keeps the most of 4:2:0 colour."""

HDR_WHITE = 203
"""Light of a white surface in an HDR picture, in nits (ITU-R BT.2408-7, section 2.1); it becomes the white of the frames."""

_BRIGHTEST = 2 * HDR_WHITE
"""Light in nits that the linear numbers between the two curves reach; in the end whatever is above `HDR_WHITE` is white."""

_MATRICES = {"bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc", "gbr"}
"""Colour matrices that swscale converts."""

_CURVES = {
    None, "bt709", "smpte170m", "smpte240m", "bt470m", "bt470bg", "gamma22", "gamma28", "iec61966-2-1", "bt2020-10",
    "bt2020-12", "iec61966-2-4", "bt1361e",
}  # fmt: skip
"""Transfer curves whose values are shown as they are, as players do."""

_PQ = "pow(max(pow({e},1/78.84375)-0.8359375,0)/(18.8515625-18.6875*pow({e},1/78.84375)),1/0.1593017578125)*10000"
"""Light in nits behind a PQ signal of 0 to 1 (SMPTE ST 2084, equation 4.1)."""

_HLG = "pow(if(lte({e},0.5),{e}*{e}/3,(exp(({e}-0.55991073)/0.17883277)+0.28466892)/12),1.2)*1000"
"""Light in nits behind an HLG signal of 0 to 1, on a screen of 1000 nits (ITU-R BT.2100-2, table 5), channel by channel."""

_CURVES_OF_HDR = {"smpte2084": _PQ, "arib-std-b67": _HLG}

_TO_BT709 = (
    "rr=1.660491:rg=-0.587641:rb=-0.072850:gr=-0.124550:gg=1.132900:gb=-0.008349:br=-0.018151:bg=-0.100579:bb=1.118730"
)
"""Primaries of BT.2020 to those of BT.709 in linear light (ITU-R BT.2087-0, annex 2)."""


def colour_filters(info: VideoInfo) -> list[str]:
    """Return the filters that come before frames are chosen: whole frames from fields, and a matrix where none is named."""
    chain = ["bwdif=mode=send_frame:deint=interlaced"] if info.interlaced else []
    if info.colour is None and info.pixels.startswith("yuv") and info.height >= 720:
        chain.append("setparams=colorspace=bt709")  # as in players, where a file names no matrix
    if info.colour and info.colour not in _MATRICES:  # swscale refuses them; the nearest that it has
        nearest = "bt2020nc" if info.colour == "bt2020c" else "bt709" if info.height >= 720 else "unknown"
        chain.append(f"setparams=colorspace={nearest}")
    if info.transfer not in _CURVES and info.transfer not in _CURVES_OF_HDR:
        chain.append("setparams=color_trc=unknown")  # some versions refuse to scale under a curve that they lack
    return chain


def tone_mapping(info: VideoInfo) -> list[str]:
    """Return the filters from PQ or HLG to BT.709: to linear light, to other primaries, to a screen's curve; else none."""
    curve = _CURVES_OF_HDR.get(info.transfer or "")
    if curve is None:
        return []
    matrix = "" if info.pixels.startswith(("gb", "rgb", "bgr")) else ":in_color_matrix=bt2020"
    linear = f"clip({curve.format(e='(val/maxval)')}/{_BRIGHTEST},0,1)*maxval"
    light = f"clip(val/maxval*{_BRIGHTEST}/{HDR_WHITE},0,1)"
    encoded = f"pow({light},1/2.4)*maxval"  # the inverse of a screen's curve (ITU-R BT.1886)
    return [
        f"scale=flags={SCALER}{matrix}",
        "format=rgb48le",
        f"lutrgb=r={linear}:g={linear}:b={linear}",
        f"colorchannelmixer={_TO_BT709}",
        f"lutrgb=r={encoded}:g={encoded}:b={encoded}",
    ]


def report(path: Path, info: VideoInfo) -> None:
    """Log what is applied to the pictures because the file asks for it, and what it asks for in vain."""
    name = path.name
    if info.pixels.startswith(("yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya")):
        log.info("%s has transparency: its colours are read as if they were opaque.", name)
    if info.interlaced:
        log.warning("%s is interlaced: its two fields are joined into whole frames (bwdif).", name)
    if info.transfer in _CURVES_OF_HDR:
        kind = "PQ" if info.transfer == "smpte2084" else "HLG"
        log.warning("%s is HDR (%s): it is tone-mapped to BT.709, with %d nits as white.", name, kind, HDR_WHITE)
    elif info.transfer not in _CURVES:
        log.warning("%s has the transfer curve %s, which is not converted: convert it to bt709 first if it looks wrong.",
                    name, info.transfer)  # fmt: skip
    if info.colour and info.colour not in _MATRICES:
        log.warning("%s has the colour matrix %s, which is not converted: convert it to bt709 first if it looks wrong.",
                    name, info.colour)  # fmt: skip
