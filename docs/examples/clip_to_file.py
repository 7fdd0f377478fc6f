"""Make a video of a prompt and write it to a file.

python -m docs.examples.clip_to_file clip.mp4 "a yellow star bounces"
"""

import sys

import t2v_models


def main(target: str = "clip.mp4", prompt: str = "a red circle moves right") -> None:
    pipeline = t2v_models.load_pipeline("built-in")  # or the path of a model
    video = pipeline(prompt, seed=1)  # .frames: (1, 16, 64, 64, 3), values from 0 to 1
    with t2v_models.VideoWriter(target, video.fps, overwrite=True) as writer:
        for frame in video.frames[0].numpy():
            writer.write(frame)


if __name__ == "__main__":
    main(*sys.argv[1:])
