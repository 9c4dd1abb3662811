"""Local copies of benchmarks, as people have them: files, folders of other projects, snapshots of the hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from openrlhf_cft.data.source import FILE_TYPES
from openrlhf_cft.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from openrlhf_cft.evaluation.benchmarks import Benchmark


def load_local(name: str, benchmark: Benchmark, directory: str) -> Dataset:
    """Load a copy: a file `NAME.jsonl` (or another type), or a folder called `NAME` or like the repository.

    The folder is one of Q's (see `benchmarks`), with `test.jsonl`, or a snapshot of the hub's repository, also in the
    layout of the hub's cache.
    """
    import datasets

    for extension, kind in FILE_TYPES.items():
        file = os.path.join(directory, name + extension)
        if os.path.isfile(file):
            return datasets.load_dataset(kind, data_files=file, split="train")
    folder = next(filter(os.path.isdir, _folders(name, benchmark, directory)), None)
    if folder is None:
        raise FileNotFoundError(f"neither a file {name}.jsonl nor a folder {name}")
    return _split(benchmark, datasets.load_dataset(_configured(benchmark, folder)))


def _folders(name: str, benchmark: Benchmark, directory: str) -> Iterator[str]:
    """The folders that may hold a copy, the likeliest first."""
    yield os.path.join(directory, name)
    if not benchmark.is_file:
        yield os.path.join(directory, benchmark.repository)
        yield os.path.join(directory, benchmark.repository.rpartition("/")[2])
        cached = os.path.join(directory, "datasets--" + benchmark.repository.replace("/", "--"), "snapshots")
        if os.path.isdir(cached):
            yield from sorted((entry.path for entry in os.scandir(cached)), key=os.path.getmtime, reverse=True)


def _configured(benchmark: Benchmark, folder: str) -> str:
    """The subfolder that holds the benchmark's configuration; the folder itself if there is none."""
    if benchmark.config is None:
        return folder
    paths = [path for path, _, files in os.walk(folder) if os.path.basename(path) == benchmark.config and files]
    paths += [
        path
        for path, folders, _ in os.walk(folder)  # `folders` hold the splits
        if os.path.basename(path) == benchmark.config and folders and path not in paths
    ]
    return min(paths, key=len, default=folder)


def _split(benchmark: Benchmark, splits: DatasetDict) -> Dataset:
    """The benchmark's own split or splits. If the copy names them differently: `test`, or its only split.

    Raises:
        InputError: it has several splits, and none of these.
    """
    import datasets

    own = benchmark.split.split("+")
    if all(name in splits for name in own):
        return datasets.concatenate_datasets([splits[name] for name in own])
    if "test" in splits or len(splits) == 1:
        return splits["test"] if "test" in splits else next(iter(splits.values()))
    raise InputError(f"it has the splits {', '.join(splits)}, and not {benchmark.split}")
