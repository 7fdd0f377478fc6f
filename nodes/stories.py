"""Stories: prompts that change over the frames."""

from __future__ import annotations

from comfy_api.latest import io

from ..t2v_models.plots.timeline import draw_story
from ..t2v_models.sampling.story import EXAMPLE, parse_story
from . import inputs
from .host import stories
from .host.compat import newer

SCENES = 6


class Story(io.ComfyNode):
    """A story as conditioning, and its timeline."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VStory",
            display_name="T2V Story",
            category="T2V/conditioning",
            description="Turns lines such as '0-2s: a red circle moves right' into one conditioning whose text changes "
            "over the frames, and draws the timeline.",
            **newer(io.Schema, search_aliases=["prompt schedule", "prompt travel", "scenes", "timeline"]),
            inputs=[
                inputs.clip(),
                io.String.Input(
                    "story",
                    multiline=True,
                    default=EXAMPLE.replace(" / ", "\n"),
                    tooltip="One scene per line: span, options, colon, text. Spans in s, % or frames; options: fade "
                    "0.5s, weight 1.2, negative. Lines without any span share the clip in equal parts.",
                ),
                io.Int.Input("frames", default=32, min=1, max=65536, tooltip="Length of the clip, as of its latent."),
                io.Float.Input(
                    "fps",
                    default=8.0,
                    min=0.1,
                    max=240.0,
                    step=0.1,
                    tooltip="The frame rate by which the story's seconds become frames.",
                ),
                *(
                    io.Conditioning.Input(
                        f"scene_{i}",
                        optional=True,
                        tooltip=f"In place of the text of scene {i}. Wire one for every scene that is not negative, or none.",
                    )
                    for i in range(1, SCENES + 1)
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The story, for any sampler's positive."),
                io.Conditioning.Output(display_name="negative", tooltip="Its negative lines; empty where none holds."),
                io.Image.Output(display_name="timeline", tooltip="A picture of the scenes over time."),
            ],
        )

    @classmethod
    @inputs.checked
    def execute(cls, clip, story: str, frames: int, fps: float, **scenes: list) -> io.NodeOutput:
        parsed = parse_story(story, frames, fps)
        wired = [scenes[name] for name in sorted(scenes) if scenes[name] is not None]
        positive = stories.from_conditionings(wired, parsed) if wired else stories.from_text(clip, parsed)
        negative = stories.from_text(clip, parsed, negative=True)
        return io.NodeOutput(positive, negative, draw_story(parsed, fps)[None])
