"""The page for the night before: `plots.cheat_sheet`, written as a PDF to print and as a PNG.

python -m lessons.cheat_sheet        # writes lessons/cheat_sheet.pdf and .png
"""

from pathlib import Path

from course_lib.teaching.plots import cheat_sheet

TARGET = Path(__file__).with_name("cheat_sheet.pdf")


def main() -> None:
    sheet = cheat_sheet()
    for path, data in ((TARGET, sheet.pdf()), (TARGET.with_suffix(".png"), sheet.png())):
        path.write_bytes(data)
        print(f"{path.name}: {len(data) / 1024:.0f} KB")


if __name__ == "__main__":
    main()
