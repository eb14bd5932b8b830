"""Folders of painted pictures, for the tests of load_folder."""

from PIL import Image


def paint(file, size=(20, 20), paper=255, ink=0, box=(4, 4, 8, 16), mode="L", **options):
    """A picture with one filled box on an even background."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new(mode, size, paper)
    picture.paste(ink, box)
    picture.save(file, **options)
    return file


def classes(root, names=("bird", "cat"), pictures=2):
    for name in names:
        for k in range(pictures):
            paint(root / name / f"{k}.png")
    return root
