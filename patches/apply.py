"""Applies the patches beside this script to the installed OpenRLHF, so that it trains on a machine without a GPU.

    python patches/apply.py                 apply; does nothing where there is a GPU, or when applied already
    python patches/apply.py --check         exit status 0 if applied, 1 if not; changes nothing
    python patches/apply.py --reverse       restore the files of the wheel, byte for byte

What is in a file decides, never a flag that could be out of date: a file is the wheel's (its hash is in the wheel's
RECORD), ours (its hash is in the state file), or somebody else's, and then nothing at all is changed. The state file
names the hashes before the first file is replaced, and every file is replaced by one rename. So a run that was killed
is finished, or undone, by the next one.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGE = "openrlhf"
VERSION = "0.11.2"
PATCHES = Path(__file__).resolve().parent
STATE = ".openrlhf_cft_patches"  # in site-packages; the leading dot keeps it from being importable


class PatchError(Exception):
    """The patches cannot be applied or reversed, in one sentence for the user."""


@dataclass(frozen=True)
class Target:
    """One file of OpenRLHF that the patches change or add."""

    path: str
    """Below site-packages, with forward slashes."""
    pristine: bytes | None
    """Contents in the wheel; None if the wheel has no such file."""
    patched: bytes | None
    """Contents with all patches; None if the patches do not (or no longer) have this file."""

    @property
    def wanted(self) -> bytes | None:
        """Contents once the patches are applied; None if the file should not exist."""
        return self.pristine if self.patched is None else self.patched


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read(path: Path) -> bytes | None:
    """The file's bytes, or None if there is no such file."""
    return path.read_bytes() if path.exists() else None


def has_gpu() -> bool:
    """Whether the NVIDIA driver lists a GPU. PyTorch is not asked: its CPU build never sees one."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listing.returncode == 0 and "GPU" in listing.stdout


class Installed:
    """The installed OpenRLHF and what earlier runs of this script left beside it."""

    def __init__(self, site_packages: Path | None = None) -> None:
        """Find OpenRLHF without importing it, in `site_packages` or on this interpreter's path.

        Raises:
            PatchError: it is not installed, or in another version.
        """
        where = sys.path if site_packages is None else [str(site_packages)]
        found = next(iter(metadata.distributions(name=PACKAGE, path=where)), None)
        if found is None:
            raise PatchError(f"{PACKAGE} is not installed; the patches are for {PACKAGE} {VERSION}")
        if found.version != VERSION:
            raise PatchError(f"the patches are for {PACKAGE} {VERSION}, and {found.version} is installed")
        self.root = Path(str(found.locate_file("")))
        # Not `found.files`, which leaves out files that are missing from Python 3.12 on.
        record = csv.reader((found.read_text("RECORD") or "").splitlines())
        self.wheel_sha256 = {
            path: base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "=").hex()
            for path, digest, _ in record
            if digest.startswith("sha256=")
        }
        self.state = self.root / STATE
        recorded = read(self.state / "written.json")
        self.written: dict[str, list[str]] = json.loads(recorded) if recorded else {}
        """Per file, the sha256 of everything that this script wrote there, or was about to write."""

    def pristine(self, path: str) -> bytes | None:
        """The wheel's contents of `path`, from the file itself or from its backup; None if the wheel lacks it.

        Raises:
            PatchError: neither the file nor the backup is what the wheel's RECORD says.
        """
        expected = self.wheel_sha256.get(path)
        if expected is None:
            return None
        for candidate in (self.root / path, self.state / "wheel" / path):
            data = read(candidate)
            if data is not None and sha256(data) == expected:
                return data
        raise self._foreign(path)

    def refuse_foreign(self, target: Target) -> None:
        """Check that replacing a file loses nothing: it holds the wheel's contents, or what this script wrote.

        Raises:
            PatchError: it holds something else.
        """
        data = read(self.root / target.path)
        ours = data is not None and sha256(data) in self.written.get(target.path, [])
        if not ours and data not in (target.pristine, target.patched):
            raise self._foreign(target.path)

    def _foreign(self, path: str) -> PatchError:
        what = "was modified by someone else" if (self.root / path).exists() else "is missing"
        return PatchError(f"{self.root / path} {what}; reinstall {PACKAGE}=={VERSION} first")

    def targets(self) -> list[Target]:
        """All files that the patches name now, or named when they were last applied.

        Raises:
            PatchError: a file is not the wheel's and not ours, or a patch does not apply.
        """
        patched = self._patched()
        paths = sorted(patched.keys() | self.written.keys())
        found = [Target(path, self.pristine(path), patched.get(path)) for path in paths]
        for target in found:
            self.refuse_foreign(target)
        return found

    def _patched(self) -> dict[str, bytes]:
        """Every file that the patches name, with all of them applied in numeric order.

        Raises:
            PatchError: a patch does not apply.
        """
        import whatthepatch  # here, so that a machine with a GPU does not need it

        contents: dict[str, bytes] = {}
        for file in sorted(PATCHES.glob("[0-9]*.patch")):
            for diff in whatthepatch.parse_patch(file.read_text(encoding="utf-8")):
                path = diff.header.new_path.removeprefix("b/")
                before = contents[path] if path in contents else self.pristine(path) or b""
                try:
                    # Split at "\n" only: whatthepatch's own splitting would lose other line ends, and the last one.
                    lines = whatthepatch.apply_diff(diff, before.decode().split("\n"))
                except whatthepatch.exceptions.HunkApplyException as error:
                    raise PatchError(f"{file.name} does not apply to {path}: {error}") from error
                contents[path] = "\n".join(lines).encode()
        return contents

    def write(self, contents: dict[str, bytes | None], targets: list[Target]) -> None:
        """Replace the files by `contents` (None: delete): backups, then the state, then one rename a file."""
        staged = self.state / "staged"
        shutil.rmtree(staged, ignore_errors=True)
        for target in targets:
            if target.pristine is not None:
                self._replace(self.state / "wheel" / target.path, target.pristine)
            after = contents[target.path]
            if after is not None:
                known = self.written.setdefault(target.path, [])
                known += [sha256(after)] if sha256(after) not in known else []
                (staged / target.path).parent.mkdir(parents=True, exist_ok=True)
                (staged / target.path).write_bytes(after)
        self._replace(self.state / "written.json", json.dumps(self.written, indent=1).encode())
        for path, after in contents.items():
            file = self.root / path
            if after is None:
                file.unlink(missing_ok=True)
            elif read(file) != after:
                if file.exists():
                    shutil.copymode(file, staged / path)
                os.replace(staged / path, file)
        shutil.rmtree(staged, ignore_errors=True)

    @staticmethod
    def _replace(path: Path, data: bytes) -> None:
        """Write a file so that it is there whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_bytes(data)
        os.replace(partial, path)

    def is_applied(self, targets: list[Target]) -> bool:
        """Whether every file is as the patches want it."""
        return all(read(self.root / target.path) == target.wanted for target in targets)

    def apply(self) -> str:
        """Apply all patches or none, and say what was done.

        Raises:
            PatchError: see `targets`.
        """
        targets = self.targets()
        count = sum(target.patched is not None for target in targets)
        if self.is_applied(targets):
            return f"{PACKAGE} {VERSION}: patched already ({count} files)"
        self.write({target.path: target.wanted for target in targets}, targets)
        return f"{PACKAGE} {VERSION}: {len(list(PATCHES.glob('[0-9]*.patch')))} patches applied to {count} files"

    def reverse(self) -> str:
        """Restore the wheel's files, all or none, and say what was done.

        Raises:
            PatchError: see `targets`.
        """
        targets = self.targets()
        self.write({target.path: target.pristine for target in targets}, targets)
        shutil.rmtree(self.state, ignore_errors=True)
        return f"{PACKAGE} {VERSION}: as in the wheel again"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--reverse", action="store_true", help="restore the wheel's files")
    action.add_argument("--check", action="store_true", help="exit status 0 if applied, 1 if not; change nothing")
    parser.add_argument("--force", action="store_true", help="apply on a machine with a GPU too")
    parser.add_argument("--site-packages", type=Path, metavar="DIR", help="where OpenRLHF is, if not on sys.path")
    args = parser.parse_args()
    try:
        if not (args.force or args.reverse or args.check) and has_gpu():
            print(f"this machine has a GPU: {PACKAGE} stays as it is (--force patches it all the same)")
            return 0
        installed = Installed(args.site_packages)
        if args.check:
            applied = installed.is_applied(installed.targets())
            print(f"{PACKAGE} {VERSION}: {'patched' if applied else 'not patched'}")
            return 0 if applied else 1
        print(installed.reverse() if args.reverse else installed.apply())
        return 0
    except PatchError as error:
        raise SystemExit(f"patches: {error}") from error


if __name__ == "__main__":
    raise SystemExit(main())
