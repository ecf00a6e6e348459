"""Write phash.json: what imagehash makes of the images of `phash_images.py`.

In an environment of its own:
    pip install imagehash scikit-learn && python tests/golden/make_phash.py
"""

import json
from pathlib import Path

import imagehash
from phash_images import images


def main() -> None:
    golden = {name: str(imagehash.phash(image)) for name, image in images().items()}
    golden["made with"] = f"imagehash {imagehash.__version__}"
    Path(__file__).with_name("phash.json").write_text(json.dumps(golden, indent=0) + "\n")


if __name__ == "__main__":
    main()
