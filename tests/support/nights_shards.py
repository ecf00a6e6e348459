"""Sources whose shards are files: Parquet, Arrow, tars, and Arrow files streamed by `datasets`."""

import io
import os
import random
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.nights_images import BROKEN, NONE, NOT_AN_IMAGE, content, encoded
from tests.support.nights_source import Rows, World, another
from tests.support.shards import add_member

SCHEMA = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("id", pa.string())])


class Shards(World):
    """files: the rows of each file by its name below the root; links: what symbolic links lead to."""

    ending: str
    folders = ("", "", "mon", "tue", "mon/sub", "label=3", "day.parquet")
    stems = ("part-0", "part-1", "part-2", "Part-0", "tag é", "images")
    prefix = ""  # of the shards' names
    links_too = True

    def __init__(self, folder: Path, chance: random.Random):
        super().__init__(folder, chance)
        self.layout = (
            chance.choice(["folder", "folder", "folder", "list", "braces", "file"]) if self.links_too else "folder"
        )
        if self.layout in ("list", "braces"):
            self.folders = ("mon", "tue", "mon/sub" if self.layout == "list" else "mon")
        self.files: dict[str, Rows] = {}
        self.links: dict[str, Path] = {}
        if self.layout == "file":
            self.folders, self.stems = ("",), ("part-0",)
        for _ in range(chance.randint(1, 4)):
            self.add()

    def config(self):
        places = {
            "folder": str(self.root), "list": [f"{self.root}/tue", f"{self.root}/mon"],
            "braces": f"{self.root}/{{mon,tue}}/*{self.ending}", "file": f"{self.root}/part-0{self.ending}",
        }  # fmt: skip
        return super().config() | {"path": places[self.layout]}

    def encode(self, rows: Rows) -> bytes:
        raise NotImplementedError

    def truth(self):
        found = {name: rows for name, rows in self.files.items() if not name.startswith("/")}
        taken = set()
        for name in sorted(self.links, key=lambda name: (name.count("/"), name)):
            target = str(self.links[name])
            if target in self.files and target not in taken:
                taken.add(target)
                found[name] = self.files[target]
        return {self.prefix + name: found[name] for name in sorted(found)}

    def refused(self):
        return any(not self.below(folder) for folder in self.places()) or any(
            not target.exists() for target in self.links.values()
        )

    def places(self) -> tuple[str, ...]:
        """The folders that are configured; each must hold a file."""
        return ("mon/", "tue/") if self.layout in ("list", "braces") else ("",)

    def below(self, folder: str) -> list[str]:
        return [name for name in [*self.files, *self.links] if name.startswith(folder) and not name.startswith("/")]

    def heal(self):
        for name in [name for name, target in self.links.items() if not target.exists()]:
            self.unlink(name)
        for folder in self.places():
            if not self.below(folder):
                self.write(f"{folder}{self.stems[0]}{self.ending}", self.rows())

    def steps(self):
        return {
            "add": (4, self.add), "append": (3, self.append), "change": (3, self.change), "delete": (2, self.delete),
            "empty": (1, self.empty), "rename": (1, self.rename), "swap": (1, self.swap), "touch": (1, self.touch),
            "break": (1, self.spoil), "mend": (1, self.mend), "shorten": (1, self.shorten),
            "link": (1 if self.links_too else 0, self.link), "unlink": (1, self.unlink),
        }  # fmt: skip

    def write(self, name: str, rows: Rows) -> str:
        self.files[name] = rows
        self.put(self.root / name, self.encode(rows))
        return f"{name} ({len(rows)} rows)"

    def pick(self) -> str | None:
        return self.chance.choice(sorted(self.files)) if self.files else None

    def new_name(self) -> str | None:
        name = f"{self.chance.choice(self.folders)}/{self.chance.choice(self.stems)}{self.ending}".lstrip("/")
        return None if name in self.files or name in self.links else name

    def add(self):
        name = self.new_name()
        return name and self.write(name, self.rows())

    def append(self):
        name = self.pick()
        return name and self.write(name, self.files[name] + self.rows(6))

    def change(self):
        if (name := self.pick()) and (rows := self.files[name]):
            changes = {"image": self.next()} if self.chance.random() < 0.7 else {"key": f"row {self.next()}"}
            return self.write(name, another(rows, self.chance.randrange(len(rows)), **changes))

    def delete(self, name: str | None = None):
        if name := name or self.pick():
            self.remove(self.root / name)
            del self.files[name]
            for link, target in list(self.links.items()):
                if target == self.root / name and self.chance.random() < 0.7:
                    self.unlink(link)
            return name

    def empty(self):
        name = self.pick()
        return name and self.write(name, ())

    def rename(self):
        if (name := self.pick()) and (new := self.new_name()):
            rows = self.files[name]
            self.delete(name)
            return f"{name} to {self.write(new, rows)}"

    def swap(self):
        if (one := self.pick()) and (other := self.pick()) and one != other:
            rows = self.files[one]
            return f"{self.write(one, self.files[other])} and {self.write(other, rows)}"

    def touch(self):
        name = self.pick()
        return name and self.write(name, self.files[name])

    def spoil(self):
        if (name := self.pick()) and (rows := self.files[name]):
            return self.write(name, another(rows, self.chance.randrange(len(rows)), image=BROKEN))

    def mend(self):
        for name in sorted(self.files):
            for i, row in enumerate(self.files[name]):
                if row.image < 0:
                    return self.write(name, another(self.files[name], i, image=self.next()))

    def shorten(self):
        if (name := self.pick()) and (rows := self.files[name]):
            return self.write(name, rows[: self.chance.randrange(len(rows))])

    def link(self):
        """To a file of this source; or to one outside of it, sometimes by two names."""
        if self.layout == "file" or not (name := self.new_name()):
            return None
        target = self.root / (self.pick() or "")
        if self.chance.random() < 0.5:
            target = self.outside / f"far-{self.chance.randint(0, 1)}{self.ending}"
            if str(target) not in self.files:
                self.write(str(target), self.rows())
        if not target.is_file():
            return None
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(target, self.root / name)
        self.links[name] = target
        return f"{name} -> {target}"

    def unlink(self, name: str | None = None):
        if name := name or (self.chance.choice(sorted(self.links)) if self.links else None):
            del self.links[name]
            self.remove(self.root / name)
            return name


class ParquetShards(Shards):
    type, ending = "parquet", ".parquet"

    def encode(self, rows):
        return self.packed(as_table(rows))

    def packed(self, table: pa.Table) -> bytes:
        stream = io.BytesIO()
        pq.write_table(table, stream, row_group_size=self.chance.randint(1, 6), compression="none")
        return stream.getvalue()


class Paths(ParquetShards):
    """Parquet that names its images; their files may come, break and be mended later, which no shard's version tells.

    good: the images whose file is as it should be.
    """

    def __init__(self, folder: Path, chance: random.Random):
        self.pictures, self.good = folder / "pictures", set()
        self.pictures.mkdir(parents=True)
        super().__init__(folder, chance)

    def config(self):
        return super().config() | {"root": str(self.pictures)}

    def steps(self):
        return super().steps() | {"picture": (6, self.picture)}

    def encode(self, rows):
        for row in rows:
            if row.image >= 0 and not (self.pictures / f"{row.image}.png").exists():
                self.picture(row.image, self.chance.random() < 0.8)
        images = [None if row.image == NONE else f"{max(row.image, 0)}.png" for row in rows]
        columns = {"image": pa.array(images, pa.string()), "id": pa.array([row.key for row in rows], pa.string())}
        return self.packed(pa.table(columns))

    def row(self):
        return replace(row, image=NONE) if (row := super().row()).image == BROKEN else row

    def spoil(self):
        return self.picture(good=False)

    def picture(self, number: int | None = None, good: bool | None = None):
        """The file of an image, or of any that some row names, as it should be; or broken, or gone."""
        numbers = sorted({row.image for rows in self.files.values() for row in rows if row.image >= 0})
        if number is None and not numbers:
            return None
        number = number or self.chance.choice(sorted(self.unsure & {*numbers}) or numbers)
        good = self.chance.random() < 0.7 if good is None else good
        self.good = self.good | {number} if good else self.good - {number}
        self.unsure |= set() if good else {number}
        path = self.pictures / f"{number}.png"
        if not good and self.chance.random() < 0.5:
            path.unlink(missing_ok=True)
        else:
            self.put(path, encoded(number) if good else NOT_AN_IMAGE)
        return f"{number} {'good' if good else 'bad'}"

    def mended(self):
        return self.unsure & self.good


class ArrowShards(Shards):
    type, ending = "arrow", ".arrow"

    def encode(self, rows):
        stream = io.BytesIO()
        make = self.chance.choice([pa.ipc.new_file, pa.ipc.new_stream])
        with make(stream, SCHEMA) as writer:
            writer.write_table(as_table(rows), max_chunksize=self.chance.randint(1, 6))
        return stream.getvalue()


class HubShards(Shards):
    """A folder of Arrow files that `datasets` streams."""

    type, ending, prefix, links_too = "huggingface", ".arrow", "train/", False
    tells_versions = False
    folders, stems = ("", "", "mon", "tue"), ("part-0", "part-1", "part-2", "part-3")

    def encode(self, rows):
        stream = io.BytesIO()
        with pa.ipc.new_stream(stream, SCHEMA) as writer:
            writer.write_table(as_table(rows), max_chunksize=self.chance.randint(1, 6))
        return stream.getvalue()


class TarShards(Shards):
    type, ending, key_column = "webdataset", ".tar", "__key__"

    def encode(self, rows):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for row in rows:
                if (data := content(row.image)) is not None:
                    add_member(tar, f"{row.key}.png", data)
                add_member(tar, f"{row.key}.txt", row.key)
        return stream.getvalue()

    def refused(self):
        truth = self.truth()
        return super().refused() or not next(iter(truth.values()))  # the first tar tells the columns

    def heal(self):
        super().heal()
        while not next(iter(self.truth().values())):
            name = next(iter(self.truth()))
            self.write(name if name in self.files else str(self.links[name]), self.rows())


def as_table(rows: Rows) -> pa.Table:
    found = [{"image": {"bytes": content(row.image), "path": None}, "id": row.key} for row in rows]
    return pa.Table.from_pylist(found, schema=SCHEMA)
