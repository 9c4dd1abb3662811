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
    """A copy: a file `NAME.jsonl` (or another type), a folder `NAME` or of the repository's name.

    The folder is one of Q's, with `test.jsonl`, or a snapshot of the hub's repository, also as the hub's cache has it.
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
    """Where a copy may be, the likeliest first."""
    yield os.path.join(directory, name)
    if not benchmark.is_file:
        yield os.path.join(directory, benchmark.repository)
        yield os.path.join(directory, benchmark.repository.rpartition("/")[2])
        cached = os.path.join(directory, "datasets--" + benchmark.repository.replace("/", "--"), "snapshots")
        if os.path.isdir(cached):
            yield from sorted((entry.path for entry in os.scandir(cached)), key=os.path.getmtime, reverse=True)


def _configured(benchmark: Benchmark, folder: str) -> str:
    """The folder of the benchmark's configuration in that of its repository; the folder itself where it has none."""
    if benchmark.config is None:
        return folder
    paths = [path for path, _, files in os.walk(folder) if os.path.basename(path) == benchmark.config and files]
    paths += [
        path
        for path, folders, _ in os.walk(folder)  # of the splits
        if os.path.basename(path) == benchmark.config and folders and path not in paths
    ]
    return min(paths, key=len, default=folder)


def _split(benchmark: Benchmark, splits: DatasetDict) -> Dataset:
    """The benchmark's own split or splits; of a copy that names them otherwise `test`, or its only one.

    Raises:
        InputError: it has several, and none of these.
    """
    import datasets

    own = benchmark.split.split("+")
    if all(name in splits for name in own):
        return datasets.concatenate_datasets([splits[name] for name in own])
    if "test" in splits or len(splits) == 1:
        return splits["test"] if "test" in splits else next(iter(splits.values()))
    raise InputError(f"it has the splits {', '.join(splits)}, and not {benchmark.split}")
