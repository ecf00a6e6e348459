"""Commands that may be disturbed: what each needs to be there, what it does, and what it must leave."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import LevitBatchError
from levit_batch.job.config import JobConfig, OutputConfig
from levit_batch.job.load import validate
from levit_batch.levit.checkpoint import load_checkpoint
from levit_batch.results.push import push
from levit_batch.storage.place import Place, place
from levit_batch.table.compact import compact
from levit_batch.table.copy import Copy
from levit_batch.table.lock import locked
from levit_batch.table.manifest import read_manifest
from levit_batch.table.output import CHUNK_FILE, SHARDS, Output
from levit_batch.table.read import open_output, read_table
from levit_batch.training.config import FinetuneConfig
from pipelines.finetune.run import finetune
from pipelines.label.run import run_job
from pipelines.rescore.prepare import prepare as prepare_rescoring
from pipelines.rescore.run import rescore
from tests.support.fault_operations import around, seen
from tests.support.hub_server import HubServer
from tests.support.nights_engine import Engine
from tests.support.nights_faults import Dead
from tests.support.nights_images import BROKEN, NOT_AN_IMAGE, encoded
from tests.support.nights_stores import STORES, Disk

LATER = 7  # an image whose file comes after the first night
FIRST = {"a": [1, 2, 3, 4, 5, 6], "b": [LATER, 8, 9, 13, BROKEN, 10], "c": [11, 12]}
SECOND = {"a": [1, 2, 3, 14, 15, 6, 16], "b": [LATER, 8, 9, 13, BROKEN, 10], "d": [17, 18, 19]}
Row = tuple[Any, ...]


class Command:
    """One command over a little source, into an output in a store. What it changes lies below `store.root`."""

    stores = ("disk", "memory", "s3")

    def __init__(self, engine: Engine, folder: Path, store: str, patch: pytest.MonkeyPatch):
        self.engine, self.folder, self.patch = engine, folder, patch
        self.store: Disk = STORES[store](folder)
        self.store.use(patch)
        for module in ("levit_batch.table.output", "levit_batch.training.state", "pipelines.finetune.output"):
            patch.setattr(f"{module}.place", self.place)
        self.kept: list[tuple[str, bytes]] = []

    def place(self, url: str) -> Place:
        return seen(self.store.place(url)) if url.startswith(self.store.url) else place(url)

    @property
    def root(self) -> str:
        return self.store.root.path

    def make(self) -> None:
        """All that must be there before the command."""

    def act(self) -> str:
        """The command, undisturbed or not; how it ended."""
        raise NotImplementedError

    def ended(self) -> str:
        """What `act` makes of whatever it raises."""
        try:
            return f"exit {self.act()}"
        except Dead:
            return "killed"
        except LevitBatchError as e:
            return f"failed: {e}"
        except OSError as e:
            return f"broken off: {type(e).__name__}: {e}"

    def keep(self) -> None:
        """What is there now is what is there before each case."""
        if self.store.root.local:
            shutil.copytree(self.root, self.folder / "before", dirs_exist_ok=True) if os.path.exists(self.root) else None
        else:
            self.kept = [(name, self.store.root.join(name).read_bytes()) for name in self.store.files()]

    def restore(self) -> None:
        self.store.clear()
        if (self.folder / "before").exists():
            shutil.copytree(self.folder / "before", self.root)
        for name, data in self.kept:
            self.store.root.join(name).write_bytes(data)

    def bury(self) -> None:
        """Whoever was killed is dead for the next one."""
        self.store.bury()

    def close(self) -> None:
        self.store.clear()

    def left(self) -> Any:
        """What must be the same, however it came about."""
        output = Output(OutputConfig(path=self.store.url))
        metrics = output.read_json("metrics.json")
        manifest = read_manifest(output)
        sums = {name: manifest.sums[name] for name in ("rows", "errors", "labels")} if manifest else None
        return {"files": self.names(), "folder": self.by_folder(output), "manifest": self.by_manifest(output), "metrics": metrics,
                "sums": sums}  # fmt: skip

    def names(self) -> list[str]:
        """Files and folders, without the runs' records, of which each attempt may leave one, and what is kept of footers a minute
        old."""
        names = {name for name in self.store.files() if not name.startswith("runs/") and name != SHARDS}
        if self.store.root.local:
            root = Path(self.root)
            names |= {f"{path.relative_to(root)}/" for path in root.rglob("*") if path.is_dir()}
        return sorted(names)

    def by_folder(self, output: Output) -> list[Row]:
        names = (name for name in self.store.files() if name.startswith("data/") and CHUNK_FILE.fullmatch(name.split("/")[-1]))
        return rows_of(output, names)

    def by_manifest(self, output: Output) -> list[Row]:
        manifest = read_manifest(output)
        return rows_of(output, manifest.files["path"].to_pylist() if manifest else ())

    def require_readable(self, before: Any, after: Any) -> None:
        """Between: whoever reads by the manifest sees no row twice, and none that is neither of before nor of after."""
        try:
            rows = self.by_manifest(Output(OutputConfig(path=self.store.url)))
        except LevitBatchError as e:
            raise AssertionError(f"by the manifest: {e}") from None
        keys = [row[:2] for row in rows]
        assert len(keys) == len(set(keys)), "by the manifest, a row is there twice"
        strange = {*rows} - {*before["manifest"], *after["manifest"]}
        assert not strange, f"by the manifest, {strange} were never labelled so"


def rows_of(output: Output, paths: Any) -> list[Row]:
    """Every row, as text that can be compared, by shard and row."""
    tables = (read_table(output.place.join(path)) for path in paths)
    found = [(row["shard"], row["row"], *map(repr, row.values())) for table in tables for row in table.to_pylist()]
    return sorted(found)


class Run(Command):
    """A first night."""

    def make(self) -> None:
        self.write_source(FIRST)

    def act(self) -> int:
        return run_job(self.config()).exit_code

    @property
    def source(self) -> Path:
        return self.folder / "source"

    def write_source(self, shards: dict[str, list[int]]) -> None:
        shutil.rmtree(self.source, ignore_errors=True)
        for name, numbers in shards.items():
            (self.source / "pictures").mkdir(parents=True, exist_ok=True)
            for number in numbers:
                if number != LATER:
                    data = NOT_AN_IMAGE if number == BROKEN else encoded(number)
                    (self.source / "pictures" / f"{number}.png").write_bytes(data)
            table = pa.table({"image": [f"{number}.png" for number in numbers], "id": [f"row {number}" for number in numbers]})
            pq.write_table(table, self.source / f"{name}.parquet")
            time = 1_700_000_000 + sum(numbers)  # the same file has the same version in every case
            os.utime(self.source / f"{name}.parquet", (time, time))

    def config(self, chunk_rows: int = 4) -> JobConfig:
        return JobConfig.model_validate(
            {
                "source": {"path": str(self.source), "root": str(self.source / "pictures"), "keep_columns": ["id"]},
                "model": {"checkpoint": self.engine.model.path, "backend": "torch"},
                "predict": {"top_k": 2},
                "output": {"path": self.store.url, "max_error_rate": 1.0},
                "compute": {"chunk_rows": chunk_rows, "gpus_per_replica": 0},
            }
        )


    def config_into(self, table: Path) -> JobConfig:
        config = self.config()
        return config.model_copy(update={"output": config.output.model_copy(update={"path": str(table)})})


class Night(Run):
    """A night that replaces a shard, adds one and drops one."""

    stores = ("disk", "plain", "memory", "s3")

    def make(self) -> None:
        self.write_source(FIRST)
        run_job(self.config())
        self.write_source(SECOND)

    def act(self) -> int:
        return run_job(self.config(), drop_vanished=True).exit_code


class Afresh(Run):
    """All of another night's rows go, and come anew."""

    def make(self) -> None:
        self.write_source(FIRST)
        run_job(self.config())

    def act(self) -> int:
        return run_job(self.config(), overwrite=True).exit_code


class Compact(Run):
    stores = ("disk", "plain", "memory", "s3")

    def make(self) -> None:
        self.write_source(FIRST)
        run_job(self.config(chunk_rows=2))

    def act(self) -> int:
        output = open_output(self.store.url)
        with locked(output.place) as claim:
            compact(output, claim.require)
        return 0


class Retry(Compact):
    """Rows with errors are labelled again, out of merged files."""

    def make(self) -> None:
        super().make()
        super().act()
        (self.source / "pictures" / f"{LATER}.png").write_bytes(encoded(LATER))

    def act(self) -> int:
        return run_job(self.config(chunk_rows=2), retry_errors=True).exit_code


class CopyInto(Run):
    """A copy in few files of a table on a disk, brought up to date after a night; its readers have no manifest, and need none."""

    def make(self) -> None:
        self.write_source(FIRST)
        self.table = labelled(self)
        self.act()
        self.write_source(SECOND)
        run_job(self.config_into(self.table), drop_vanished=True)

    def act(self) -> int:
        copy = Copy(open_output(str(self.table)), Output(OutputConfig(path=self.store.url)))
        with locked(copy.place) as claim:
            copy.update(claim.require, rows=12)
        return 0

    def left(self) -> Any:
        names = [name for name in self.store.files() if name.startswith("data/") and name.endswith(".parquet")]
        return {"files": self.names(), "folder": rows_of(Output(OutputConfig(path=self.store.url)), names)}

    def require_readable(self, before: Any, after: Any) -> None:
        rows = self.left()["folder"]
        keys = {row[:2] for row in rows}
        assert len(keys) == len(rows), "by the folder, a row is there twice"
        assert {*rows} <= {*before["folder"], *after["folder"]}, "by the folder, a row was never labelled so"
        always = {row[:2] for row in before["folder"]} & {row[:2] for row in after["folder"]}
        assert always <= keys, "by the folder, a row is missing"


class Rescore(Run):
    """The labels of other heads; the table that they are made from lies on a disk."""

    def make(self) -> None:
        self.write_source(FIRST)
        self.table = labelled(self)
        self.head = self.folder / "head"
        if not self.head.exists():
            model = load_checkpoint(self.engine.model.path).model
            with contextlib.suppress(AttributeError):
                model.processor = self.engine.model.checkpoint.processor
            for head in (getattr(model, name) for name in model.heads):
                head.linear.weight.data = head.linear.weight.data.flip(0)
            model.save_pretrained(self.head)

    def act(self) -> int:
        return rescore(prepare_rescoring(str(self.table), str(self.head), self.store.url)).exit_code


def labelled(command: Run) -> Path:
    """A table of the source, on a disk."""
    table = command.folder / "table"
    if not table.exists():
        run_job(command.config_into(table))
    return table


class Push(Run):
    """A table to a Hub on loopback; what may go wrong are the requests, to it and to the table's store."""

    stores = ("disk", "s3")

    def make(self) -> None:
        self.write_source(FIRST)
        run_job(self.config())
        self.store.root.join("report.html").write_bytes(b"page")
        self.store.root.join("README.md").write_bytes(b"---\nlicense: mit\n---\ncard")
        self.hub = HubServer(self.folder / "hub", tokens={"hf_good"}).__enter__()
        self.hub.use(self.patch)
        self.patch.setenv("HF_TOKEN", "hf_good")
        watch_requests(self.patch)

    @property
    def root(self) -> str:
        return self.hub.url

    def act(self) -> int:
        push(open_output(self.store.url), "tester/labels")
        return 0

    def keep(self) -> None:
        pass

    def restore(self) -> None:
        shutil.rmtree(self.hub.folder / "datasets", ignore_errors=True)

    def bury(self) -> None:
        pass

    def close(self) -> None:
        self.hub.__exit__()
        super().close()

    def left(self) -> Any:
        folder = self.hub.folder / "datasets"
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    def require_readable(self, before: Any, after: Any) -> None:
        assert {*self.left().items()} <= {*after.items()}, "half a file went up"


def watch_requests(patch: pytest.MonkeyPatch) -> None:
    """Requests of the Hub's client go through `around`."""
    import httpx2
    from huggingface_hub.utils import close_session

    send = httpx2.Client.send

    def watched(client: Any, request: Any, **options: Any) -> Any:
        try:
            return around("request", str(request.url), lambda: send(client, request, **options))
        except OSError as e:
            raise httpx2.ReadError(str(e), request=request) from e

    patch.setattr(httpx2.Client, "send", watched)
    close_session()  # the next one is made by the class as it is now


class Finetune(Run):
    """Heads on a table's embeddings."""

    stores = ("disk",)

    def make(self) -> None:
        self.write_source(FIRST)
        self.table = labelled(self)

    def act(self) -> int:
        finetune(self.training())
        return 0

    def training(self) -> FinetuneConfig:
        values = {
            "source": {"type": "output", "path": str(self.table), "target_column": "label_name"},
            "validation": {"fraction": 0.3}, "model": {"checkpoint": self.engine.model.path}, "output": {"path": self.store.url},
            "train": {"freeze": "backbone", "epochs": 2, "batch_size": 2, "seed": 3, "save_steps": 2},
        }  # fmt: skip
        return validate(values, "test", FinetuneConfig)

    def left(self) -> Any:
        history = self.store.root.join("history.json")
        record = json.loads(history.read_bytes()) if history.exists() else {"history": []}
        for entry in (*record["history"], record.get("best") or {}):
            entry.pop("seconds", None)
        weights = self.store.root.join("model.safetensors")
        return {"files": self.names(), "record": record, "weights": weights.read_bytes() if weights.exists() else b""}

    def require_readable(self, before: Any, after: Any) -> None:
        weights = self.left()["weights"]
        assert weights in (b"", after["weights"]), "a checkpoint that was never trained to its end is there"


COMMANDS: dict[str, type[Command]] = {
    "run": Run, "night": Night, "afresh": Afresh, "compact": Compact, "copy": CopyInto, "retry": Retry, "rescore": Rescore,
    "push": Push, "finetune": Finetune,
}  # fmt: skip
