"""A dataset on the Hugging Face Hub (or a folder that `load_dataset` accepts), resolved by the `datasets` builder.

Parquet is read by range requests, as the `parquet` source reads it; everything else streams through `datasets`.
"""

import re
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from levit_batch.errors import SourceError
from levit_batch.job.config import SourceConfig
from levit_batch.sources.imagefolder import IMAGE_ENDINGS, ImageFolder
from levit_batch.sources.imagefolder_metadata import METADATA_NAMES
from levit_batch.sources.parquet import ParquetSource
from levit_batch.sources.source import Source
from levit_batch.sources.webdataset import WebDataset
from levit_batch.storage.hub import explain, patient_hub
from levit_batch.storage.identity import File, hub_listing, stamp_of
from levit_batch.storage.place import place

if TYPE_CHECKING:
    from datasets import DatasetBuilder

FORM = re.compile(r"packaged_modules\.(\w+)\.")  # of the builder
COMMIT = re.compile(r"hf://datasets/[^@]+@(?P<commit>[^/]+)/(?P<path>.*)")


def open_source(config: SourceConfig) -> Source:
    """Resolve the dataset and pin its commit. Raises SourceError saying what to do: accept, log in, correct a name."""
    if not isinstance(config.path, str):
        raise SourceError("source.path: a huggingface source has one repository id, not a list")
    patient_hub()
    builder = load_builder(config)
    data_files = builder.config.data_files
    split = choose_split(config, list(data_files or builder.info.splits or []))
    urls = [str(url) for name in split for url in (data_files or {}).get(name, [])]
    form = FORM.search(type(builder).__module__)
    if urls and form and form[1] == "parquet":
        return HubParquet(config, builder, urls)
    if urls and form and form[1] == "webdataset":
        return HubTars(config, urls)
    if urls and form and form[1] == "imagefolder" and all(HubFolder.reads(url) for url in urls):
        return HubFolder(config, builder.base_path, urls)
    from levit_batch.sources.huggingface_stream import HubStream

    return HubStream(config, builder, split)


def load_builder(config: SourceConfig) -> "DatasetBuilder":
    """The builder that `load_dataset` would use. Nothing is downloaded but the dataset's card."""
    from datasets import load_dataset_builder

    path = config.path
    try:
        return load_dataset_builder(path, config.name, revision=config.revision)
    except Exception as e:
        downloaded = _downloaded(config)
        if downloaded is None:
            raise explain(e, config.path, config.revision) from None
    try:
        return load_dataset_builder(downloaded, config.name)
    except Exception as e:
        raise explain(e, config.path, config.revision) from None


def _downloaded(config: SourceConfig) -> str | None:
    """Without a network: the folder of the whole repository, if `hf download` put it into the cache."""
    from huggingface_hub import constants, snapshot_download

    if not constants.is_offline_mode():
        return None
    try:
        return snapshot_download(config.path, repo_type="dataset", revision=config.revision, local_files_only=True)
    except Exception:
        return None


def choose_split(config: SourceConfig, splits: list[str]) -> list[str]:
    """The splits to read, in order: `source.split`, where + adds and `all` is all; or the only one there is."""
    splits = [str(split) for split in splits]
    if config.split is None and len(splits) == 1:
        return splits
    wanted = splits if config.split == "all" else [part.strip() for part in (config.split or "").split("+")]
    unknown = [part for part in wanted if part not in splits]
    if unknown:
        what = f"there is no split {unknown[0]}" if config.split else "the dataset has several splits"
        slices = " (use source.limit in place of a slice)" if "[" in (config.split or "") else ""
        raise SourceError(f"source.split: {what}; choose of: {', '.join(splits)}{slices}")
    return wanted


class HubParquet(ParquetSource):
    """The Parquet files of a dataset at one commit; their class names may stand in the dataset's card."""

    def __init__(self, config: SourceConfig, builder: "DatasetBuilder", urls: list[str]):
        super().__init__(config)
        self.urls = urls
        self.features = builder.info.features.arrow_schema if builder.info.features else None
        self.revision = commit_of(urls)

    @cached_property
    def files(self) -> list[File]:
        return data_files(self.urls)

    @cached_property
    def _schema(self) -> pa.Schema:
        own = super()._schema
        has_features = own.metadata and b"huggingface" in own.metadata
        return own if has_features or self.features is None else own.with_metadata(self.features.metadata)


class HubTars(WebDataset):
    """The tars of a dataset at one commit."""

    def __init__(self, config: SourceConfig, urls: list[str]):
        super().__init__(config)
        self.urls, self.revision = urls, commit_of(urls)

    @cached_property
    def files(self) -> list[File]:
        return data_files(self.urls)


class HubFolder(ImageFolder):
    """The images of a dataset at one commit, as far as they belong to the splits asked for."""

    def __init__(self, config: SourceConfig, base: str, urls: list[str]):
        super().__init__(config, base)
        self.urls, self.revision = set(urls), commit_of(urls)

    @property
    def driver_only(self) -> tuple[str, ...]:
        return ("rows", "urls") if self._packed else ("rows",)

    @staticmethod
    def reads(url: str) -> bool:
        """Whether this is a file that an image folder consists of: an archive, say, is not."""
        return url.lower().endswith(IMAGE_ENDINGS) or url.rpartition("/")[2] in METADATA_NAMES

    def listing(self) -> pa.Table:
        files = super().listing()
        wanted = [
            self.folder.join(name).url in self.urls for piece in files["name"].chunks for name in piece.to_pylist()
        ]
        return files.filter(pa.array(wanted, pa.bool_()))


def commit_of(urls: list[str]) -> str | None:
    pinned = COMMIT.match(urls[0])
    return pinned["commit"] if pinned else None


def data_files(urls: list[str]) -> list[File]:
    """Data files as shards: named by their paths in the repository, identified by the Hub's hashes of them."""
    root = _root(urls[0])
    listing = hub_listing(place(root)) if root else {}
    files = []
    for url in urls:
        name = url[len(root) :].lstrip("/") if root else url.rsplit("/", 1)[-1]
        size, stamp = listing[name] if root else _local(url)
        files.append(File(name, url, size, stamp))
    if len({file.name for file in files}) < len(files):
        raise SourceError("source.path: the dataset has several data files of one name; give them folders")
    return files


def _root(url: str) -> str:
    """The repository at its commit, or "" for a file that is not on the Hub."""
    pinned = COMMIT.match(url)
    return url[: pinned.start("path")].rstrip("/") if pinned else ""


def _local(url: str) -> tuple[int, str]:
    info = place(url).info()
    return info.size, stamp_of(place(url), info=info)
