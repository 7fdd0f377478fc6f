"""Make a film of a story: two scenes, one line each, with a fade of half a second between them.

python -m docs.examples.story_film film.mp4
"""

import sys

import t2v_models

STORY = """0-50%: a red circle moves right
50%-100%, fade 0.5s: a blue star moves up"""


def main(target: str = "film.mp4") -> None:
    pipeline = t2v_models.load_pipeline("built-in")
    film = t2v_models.Film(pipeline, STORY, method="windows", frames=32, steps=10, seed=1)
    with t2v_models.VideoWriter(target, film.fps, overwrite=True) as writer:
        for frames in film.frames():  # (n, 64, 64, 3) each, in order, as soon as they are finished
            for frame in frames.numpy():
                writer.write(frame)


if __name__ == "__main__":
    main(*sys.argv[1:])
