"""Make one prompt with six seeds, and show four frames of each on one picture: a row per seed.

python -m docs.examples.contact_sheet sheet.png "a green square spins"
"""

import sys

from einops import rearrange
from PIL import Image

import t2v_models


def main(target: str = "sheet.png", prompt: str = "a green square moves down") -> None:
    pipeline = t2v_models.load_pipeline("built-in")
    videos = pipeline([prompt] * 6, seed=1, steps=10).frames  # the seeds are 1 to 6
    sheet = rearrange(videos[:, ::5], "seed t h w c -> (seed h) (t w) c")
    Image.fromarray((sheet * 255).round().byte().numpy()).save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
