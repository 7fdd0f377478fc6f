"""Frames to video files and back."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..t2v_models.video import DEFAULT_QUALITY
from . import inputs
from .host import load_video, save_video
from .host.compat import newer

CATEGORY = "T2V/video"


class SaveVideo(io.ComfyNode):
    """Frames, or a latent, to a video file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        formats = save_video.format_names()
        return io.Schema(
            node_id="T2VSaveVideo",
            display_name="T2V Save Video",
            category=CATEGORY,
            description="Writes a video file: frames, or a latent that is decoded while it is written. The workflow "
            "goes into the file, and into a PNG beside it where the graph editor would not read it from the file.",
            **newer(io.Schema, search_aliases=["video combine", "mp4", "webm", "gif", "export", "save"]),
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=[
                io.Float.Input(
                    "fps",
                    default=8.0,
                    min=0.01,
                    max=1000.0,
                    step=0.001,
                    round=0.001,
                    tooltip="Frames a second; 23.976 and 29.97 are stored as exact fractions.",
                ),
                io.Combo.Input(
                    "format",
                    options=formats,
                    default=formats[0],
                    tooltip="h264-mp4 plays everywhere; ffv1-mkv and png lose nothing; gif has 256 colours.",
                ),
                io.Int.Input(
                    "quality",
                    default=DEFAULT_QUALITY,
                    min=0,
                    max=100,
                    tooltip="0: smallest file, 80: looks like the frames, 100: best. Lossless formats ignore it.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="video/T2V",
                    tooltip="Name in the output folder, / for subfolders; %date:yyyy-MM-dd%, %width% and the other "
                    "patterns of ComfyUI work.",
                ),
                io.Int.Input(
                    "loop_count",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="GIF and WebP: how often the clip is repeated, 0: for ever. Other formats: how often it is "
                    "played once more in the file.",
                ),
                io.Boolean.Input(
                    "pingpong", default=False, tooltip="Play the frames forwards, then backwards: a seamless loop."
                ),
                io.Boolean.Input(
                    "save_output",
                    default=True,
                    label_on="output folder",
                    label_off="temp folder",
                    tooltip="Off: only a preview, in the temp folder that ComfyUI empties.",
                ),
                io.Image.Input("images", optional=True, tooltip="The frames, as a batch of images."),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="In place of images: decoded a few frames at a time while the file is written, so that the "
                    "length does not matter to the memory. Several videos become several files.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Decodes the latent."),
                io.Audio.Input(
                    "audio", optional=True, tooltip="Goes into the same file, cut or filled up to the clip's length."
                ),
            ],
            outputs=[
                io.Video.Output(
                    display_name="VIDEO", is_output_list=True, tooltip="For ComfyUI's own video nodes, one a file."
                )
            ],
        )

    @classmethod
    @inputs.checked
    def execute(
        cls,
        fps: float,
        format: str,
        quality: int,
        filename_prefix: str,
        loop_count: int,
        pingpong: bool,
        save_output: bool,
        images=None,
        latent: dict | None = None,
        vae=None,
        audio: dict | None = None,
    ) -> io.NodeOutput:
        settings = save_video.Settings(fps, format, quality, filename_prefix, loop_count, pingpong, save_output)
        metadata = save_video.workflow_texts(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        saved = [save_video.save(clip, settings, audio, metadata) for clip in save_video.clips(images, latent, vae)]
        shown = {
            "images": [one.shown for one in saved],
            "animated": (True,),
            "t2v_files": [one.stored for one in saved],
        }
        return io.NodeOutput([one.video for one in saved], ui=shown)


class LoadVideo(io.ComfyNode):
    """A video file to frames and sound."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VLoadVideo",
            display_name="T2V Load Video",
            category=CATEGORY,
            description="Reads a video file of the input folder: trimmed, thinned out, at another rate or size. A clip "
            "that does not fit into memory is refused before it is read.",
            **newer(io.Schema, search_aliases=["video to video", "vid2vid", "import", "load", "frames"]),
            inputs=[
                io.Combo.Input(
                    "video",
                    options=load_video.clip_names(),
                    upload=io.UploadType.video,
                    tooltip="A clip in the input folder, or a folder of numbered PNG, JPEG or WebP pictures there.",
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=0.001,
                    round=0.001,
                    tooltip="Drop or repeat frames to reach this rate; 0: the file's own.",
                ),
                io.Int.Input(
                    "start_frame",
                    default=0,
                    min=0,
                    max=10_000_000,
                    tooltip="Skip this many frames, counted at the rate of fps.",
                ),
                io.Int.Input(
                    "every_nth", default=1, min=1, max=10_000, tooltip="Take every n-th frame; 1: all of them."
                ),
                io.Int.Input(
                    "frame_cap",
                    default=0,
                    min=0,
                    max=10_000_000,
                    tooltip="Read at most this many frames; 0: all of them.",
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=8192,
                    step=8,
                    tooltip="Scale to this width; 0: as the height asks for, or the file's own.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=8192,
                    step=8,
                    tooltip="Scale to this height; 0: as the width asks for, or the file's own.",
                ),
                io.Boolean.Input(
                    "strict",
                    default=True,
                    optional=True,
                    label_on="whole clips only",
                    label_off="damaged clips, too",
                    **newer(io.Boolean.Input, advanced=True),
                    tooltip="Off: of a clip that is cut off or damaged, take the frames that can be read.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="IMAGE", tooltip="The frames, as a batch of images."),
                io.Audio.Output(
                    display_name="AUDIO", tooltip="The sound of these frames; nothing if the file is mute."
                ),
                io.Float.Output(display_name="fps", tooltip="Frames a second of what comes out."),
                io.Int.Output(display_name="frame_count", tooltip="How many frames come out."),
            ],
        )

    @classmethod
    @inputs.checked
    def execute(
        cls,
        video: str,
        fps: float,
        start_frame: int,
        every_nth: int,
        frame_cap: int,
        width: int,
        height: int,
        strict: bool = True,
    ) -> io.NodeOutput:
        reader = load_video.opened(
            video,
            fps=fps,
            start=start_frame,
            every=every_nth,
            count=frame_cap,
            size=(width, height),
            strict=strict,
        )
        images = load_video.load(reader)
        return io.NodeOutput(images, load_video.load_audio(reader), float(reader.rate), len(images))

    @classmethod
    def fingerprint_inputs(cls, video: Any = None, **_: object) -> str:
        if video is None:
            return "a link"
        return load_video.fingerprint(video)

    @classmethod
    def validate_inputs(cls, video: Any = None, input_types: dict[str, str] | None = None) -> bool | str:
        # with `input_types` the host leaves the types of links to this function, and tells links from null
        linked = input_types or {}
        misfits = load_video.misfits(linked, cls.INPUT_TYPES())
        if misfits:
            return misfits
        try:
            if "video" not in linked and (video is not None or input_types is not None):
                load_video.clip_path(video)
        except ValueError as error:
            return str(error)
        return True
