"""The animated memory map of the README: the same requests in slabs and in blocks, drawn by `plots.memory_map`.

python -m lessons.animation        # writes lessons/memory_map.gif
"""

import io
from collections.abc import Container, Iterator
from pathlib import Path

from PIL import Image

from course_lib.memory import sharegpt_like
from course_lib.teaching import paper, plots
from course_lib.teaching.film import film

TARGET = Path(__file__).with_name("memory_map.gif")
SECONDS, EVERY = 63, 1.575
MILLISECONDS, AT_THE_END = 220, 4000  # that a frame is shown


def frames(only: Container[int] = range(1000)) -> Iterator[Image.Image]:
    """The pictures, first to last, or `only` some of them."""
    chats = sharegpt_like(n=200, rate=paper.SHAREGPT_RATE, seed=1)
    names = ("reserve_max", "paged")
    reels = [film(chats, name, num_slots=paper.NUM_SLOTS, seconds=SECONDS, every=EVERY) for name in names]
    for number, shots in enumerate(zip(*reels, strict=True)):
        if number not in only:
            continue
        picture = plots.memory_map(dict(zip(names, shots, strict=True)), lines=3)
        yield Image.open(io.BytesIO(picture.png())).convert("RGB")


def main() -> None:
    shown = list(frames())
    palette = shown[-1].quantize(64, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in shown]
    durations = [MILLISECONDS] * (len(indexed) - 1) + [AT_THE_END]
    indexed[0].save(
        TARGET, save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=True
    )
    print(f"{TARGET.name}: {len(indexed)} frames, {TARGET.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
