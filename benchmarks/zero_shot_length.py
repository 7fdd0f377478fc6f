"""What 200 frames of T2VZeroShot in chunks of 8 take against 50: seconds a frame, and memory.

    python benchmarks/zero_shot_length.py

Runs a small image model in every ComfyUI that the tests find, on one thread, and counts processor time, which varies less on
a busy machine. 197 frames are 28 whole chunks, each of the first frame and seven new ones.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

LENGTHS, CHUNK, STEPS, SIZE = (50, 197, 50, 197), 8, 8, 16


def check_length(host):
    """(frames, seconds a frame in the first and second half of the chunks, MB held after the second and the last)."""
    import zero_shot_node as node

    run = host.module("nodes.host.zero_shot.run")
    own = run.Job.chunk

    def measured(frames):
        seconds, held = [], []

        def chunk(job, numbers, number):
            begun = time.process_time()
            made = own(job, numbers, number)
            seconds.append((time.process_time() - begun) / (len(numbers) - 1))
            held.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6)
            return made

        run.Job.chunk = chunk
        try:
            node.run(host, latent=node.zeros(frames, SIZE, SIZE), chunk=CHUNK, steps=STEPS, path="there and back")
        finally:
            run.Job.chunk = own
        half = len(seconds) // 2
        first, second = seconds[1:half], seconds[half:]  # the first chunk begins with the first frame's own steps
        return frames, sum(first) / len(first), sum(second) / len(second), held[1], held[-1]

    measured(29)  # warm
    return [measured(frames) for frames in LENGTHS]


def main() -> None:
    from benchmarks.in_hosts import results

    for version, runs in results(__file__, "check_length"):
        for frames, first, second, early, late in runs:
            print(
                f"ComfyUI {version}, {frames} frames: {1000 * first:.1f} ms a frame in the first half, {1000 * second:.1f} ms in "
                f"the second, {early:.0f} MB held after two chunks, {late:.0f} MB after the last"
            )


if __name__ == "__main__":
    main()
