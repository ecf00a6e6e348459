"""Write what imagehash makes of the images of `phash_images.py`: phash.json, or for what Pillow made of them before 13 another.

In an environment of its own, for both:
    pip install imagehash scikit-learn pillow && python tests/golden/make_phash.py
    pip install 'pillow<13' && python tests/golden/make_phash.py
"""

import json
from pathlib import Path

import imagehash
from phash_images import NAME, images


def main() -> None:
    golden = {name: str(imagehash.phash(image)) for name, image in images().items()}
    golden["made with"] = f"imagehash {imagehash.__version__}"
    Path(__file__).with_name(NAME).write_text(json.dumps(golden, indent=0) + "\n")


if __name__ == "__main__":
    main()
