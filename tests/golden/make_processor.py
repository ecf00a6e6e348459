"""Write processor.json: what transformers' torch-backed LevitImageProcessor makes of `processor_cases.CASES`.

It needs torchvision, which must not be installed beside this project's torch. In an environment of its own:
    pip install torch torchvision transformers pillow && python tests/golden/make_processor.py
"""

import hashlib
import json
from pathlib import Path

import torchvision
import transformers
from processor_cases import CASES, case_image
from transformers import LevitImageProcessor


def main() -> None:
    golden = {}
    for case in CASES:
        values = LevitImageProcessor(**case["fields"])(
            case_image(case), input_data_format="channels_last", return_tensors="np"
        )["pixel_values"]
        stride = values[0].size // 20 + 1
        golden[case["name"]] = {
            "form": [list(values.shape), str(values.dtype)],
            "stride": stride,
            "sample": values[0].flatten()[::stride].tolist(),
            "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
        }
    golden["made with"] = {"transformers": transformers.__version__, "torchvision": torchvision.__version__}
    Path(__file__).with_name("processor.json").write_text(json.dumps(golden, indent=0) + "\n")


if __name__ == "__main__":
    main()
