"""Hold label_studio/tasks.json and label_config.xml, which we wrote, against Label Studio's own SDK, and write beside them what
its projects export once people have answered: annotated.json (form JSON, as its server gives it) and min.json (JSON-MIN).

In an environment of its own:
    pip install label-studio-sdk && python tests/golden/make_label_studio.py
The two are `export --to label-studio` of the table in tests/results/export/test_label_studio.py, which holds them to it.
"""

import json
import tempfile
from pathlib import Path

from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface

HERE = Path(__file__).with_name("label_studio")
ANSWERS = [["crane (1)"], ["crane (2)"], None, ["tench, Tinca tinca"]]  # of the first tasks; None: skipped


def main() -> None:
    config, tasks = (HERE / "label_config.xml").read_text(), json.loads((HERE / "tasks.json").read_text())
    interface = LabelInterface(config)
    interface.validate()
    for task in tasks:
        assert interface.validate_task({"data": task["data"]}), task
        for prediction in task["predictions"]:
            assert not (wrong := interface.validate_prediction(prediction, return_errors=True)), wrong
    annotated = [
        task | {"id": i, "annotations": annotations(i, task, answer), "predictions": []}
        for i, (task, answer) in enumerate(zip(tasks, ANSWERS, strict=False), 1)
    ]
    (HERE / "annotated.json").write_text(json.dumps(annotated, indent=1) + "\n")
    with tempfile.TemporaryDirectory() as out:
        converter = Converter(config, out, download_resources=False)
        converter.convert_to_json_min(str(HERE / "annotated.json"), out, is_dir=False)
        minimal = json.loads(Path(out, "result.json").read_text())
    (HERE / "min.json").write_text(json.dumps(minimal, indent=1) + "\n")


def annotations(number: int, task: dict, answer: list[str] | None) -> list[dict]:
    """Our label, taken over first, and then the answer."""
    first = task["predictions"][0]["result"]
    last = [first[0] | {"value": {"choices": answer}}] if answer else []
    return [
        {"id": 10 * number + i, "completed_by": 1, "result": result, "was_cancelled": not result, "ground_truth": False,
         "created_at": f"2026-11-0{i + 1}T08:00:00.000000Z", "updated_at": f"2026-11-0{i + 1}T08:00:00.000000Z"}
        for i, result in enumerate([first, last] if answer else [last])
    ]  # fmt: skip


if __name__ == "__main__":
    main()
