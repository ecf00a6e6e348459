"""Image folders, plain and with a metadata.csv: shards are cut out of a listing, rows move from one to another."""

import os
import random
from pathlib import Path

from levit_batch.sources.imagefolder_runs import cut_runs
from tests.support.nights_images import BROKEN, MISSING, content
from tests.support.nights_source import Row, World

FOLDERS = ("", "images", "a", "a/images", "b", "c é")


class Folder(World):
    """files: the image of each file by its name below the root; links: the names that lead to one of them."""

    type, key_column, moves_rows = "imagefolder", "file_name", True
    tells_versions = False

    def __init__(self, folder: Path, chance: random.Random):
        super().__init__(folder, chance)
        self.files: dict[str, int] = {}
        self.links: dict[str, str] = {}
        for _ in range(chance.randint(1, 4)):
            self.add()

    def listed(self) -> list[tuple[str, Row]]:
        """File name and row, in the order of the source."""
        images = self.files | {link: self.files.get(target, MISSING) for link, target in self.links.items()}
        return [(name, Row(name, images[name])) for name in sorted(images, key=lambda name: name.split("/"))]

    def truth(self):
        listed = self.listed()
        runs = cut_runs(name for name, _ in listed)
        return {shard: tuple(row for _, row in listed[start:stop]) for shard, start, stop in runs}

    def refused(self):
        return not self.files and not self.links

    def heal(self):
        if self.refused():
            self.add()

    def steps(self):
        return {
            "add": (4, self.add), "change": (3, self.change), "delete": (3, self.delete), "rename": (2, self.rename),
            "delete folder": (1, self.delete_folder), "swap": (1, self.swap), "touch": (1, self.touch),
            "break": (1, self.spoil), "mend": (1, self.mend), "link": (1, self.link), "unlink": (1, self.unlink),
        }  # fmt: skip

    def write(self, name: str, image: int) -> str:
        self.files[name] = image
        self.put(self.root / name, content(image))
        return name

    def new_name(self) -> str | None:
        folder, ending = self.chance.choice(FOLDERS), self.chance.choice([".png", ".PNG", ".jpg"])
        name = f"{folder}/{self.chance.choice(['x', 'y', 'images'])}{self.chance.randint(0, 60):02d}{ending}".lstrip(
            "/"
        )
        return None if name in self.files or name in self.links else name

    def pick(self) -> str | None:
        return self.chance.choice(sorted(self.files)) if self.files else None

    def add(self):
        names = [name for name in (self.new_name() for _ in range(self.chance.randint(1, 12))) if name]
        return ", ".join(self.write(name, max(self.row().image, BROKEN)) for name in dict.fromkeys(names))

    def change(self):
        name = self.pick()
        return name and self.write(name, self.next())

    def touch(self):
        name = self.pick()
        return name and self.write(name, self.files[name])

    def spoil(self):
        name = self.pick()
        return name and self.write(name, BROKEN)

    def mend(self):
        broken = [name for name in sorted(self.files) if self.files[name] == BROKEN]
        return ", ".join(self.write(name, self.next()) for name in broken)

    def delete(self):
        names = self.chance.sample(sorted(self.files), min(len(self.files), self.chance.randint(1, 4)))
        return ", ".join(self.drop(name) for name in names)

    def drop(self, name: str) -> str:
        self.remove(self.root / name)
        del self.files[name]
        return name

    def delete_folder(self):
        folder = self.chance.choice(FOLDERS[1:])
        return f"{folder}: " + ", ".join(self.drop(n) for n in sorted(self.files) if n.startswith(f"{folder}/"))

    def rename(self):
        if (name := self.pick()) and (new := self.new_name()):
            image = self.files[name]
            return f"{self.drop(name)} to {self.write(new, image)}"

    def swap(self):
        if (one := self.pick()) and (other := self.pick()) and one != other:
            image = self.files[one]
            return f"{self.write(one, self.files[other])} and {self.write(other, image)}"

    def link(self):
        if (target := self.pick()) and (name := self.new_name()):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(self.root / target, self.root / name)
            self.links[name] = target
            return f"{name} -> {target}"

    def unlink(self):
        if self.links:
            name = self.chance.choice(sorted(self.links))
            del self.links[name]
            self.remove(self.root / name)
            return name


class Described(Folder):
    """A metadata.csv names the files, in its own order; those it does not name are no rows."""

    key_column = "id"

    def __init__(self, folder: Path, chance: random.Random):
        self.lines: list[tuple[str, str]] = []  # file name and id
        super().__init__(folder, chance)
        self.describe()

    def listed(self):
        images = {name: row.image for name, row in super().listed()}
        return [(name, Row(key, images.get(name, MISSING))) for name, key in self.lines]

    def refused(self):
        return not self.lines

    def heal(self):
        if self.refused():
            super().add()
            self.describe()

    def steps(self):
        own = {
            "describe": (4, self.describe),
            "rekey": (1, self.rekey),
            "forget": (2, self.forget),
            "shuffle": (1, self.shuffle),
        }
        return super().steps() | own

    def step(self):
        said = super().step()
        if self.chance.random() < 0.8:
            said += f"; describe {self.describe()}"
        return said

    def save(self) -> None:
        text = "".join(f"{name},{key}\n" for name, key in [("file_name", "id"), *self.lines])
        self.put(self.root / "metadata.csv", text.encode())

    def describe(self):
        """Lines for what has none, and now and then for a file that is not there."""
        told = {name for name, _ in self.lines}
        names = [name for name in [*sorted(self.files), *sorted(self.links)] if name not in told]
        if self.chance.random() < 0.1:
            names.append(f"nowhere/{self.next()}.png")
        for name in names:
            at = self.chance.randint(0, len(self.lines)) if self.chance.random() < 0.3 else len(self.lines)
            self.lines.insert(at, (name, f"row {self.next()}"))
        self.save()
        return ", ".join(names)

    def rekey(self):
        if self.lines:
            at = self.chance.randrange(len(self.lines))
            self.lines[at] = (self.lines[at][0], f"row {self.next()}")
            self.save()
            return self.lines[at][0]

    def forget(self):
        if self.lines:
            name, _ = self.lines.pop(self.chance.randrange(len(self.lines)))
            self.save()
            return name

    def shuffle(self):
        self.chance.shuffle(self.lines)
        self.save()
        return "the lines"
