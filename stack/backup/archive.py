"""The archive: a tar, compressed, with a manifest of hashes as its last member."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from pydantic import ValidationError

from stack.backup.failures import ArchiveDamaged, BackupFailed
from stack.backup.manifest import MANIFEST, Manifest, Member
from stack.backup.settings import POCKETBASE, RUNS, SECRETS, SPOOL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_SAFE = re.compile(rf"({POCKETBASE}|{RUNS}|{SPOOL}|{SECRETS})(/[^/\0]+)+")
_BLOCK_BYTES = 1 << 20
_MAX_MANIFEST_BYTES = 1 << 30
_COMPRESSION = 6


class ArchiveWriter:
    """Writes members and remembers their hashes."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self.members: list[Member] = []

    def add(self, path: str, source: IO[bytes], size: int) -> None:
        """Add the next *size* bytes of *source* as *path*."""
        reader = _Hashing(source)
        self._tar.addfile(_member(path, size), reader)  # type: ignore[arg-type]
        self.members.append(Member(path=path, size=size, sha256=reader.sha256))

    def add_file(self, path: str, file: Path) -> None:
        """Add a whole file that nobody changes meanwhile."""
        with file.open("rb") as source:
            self.add(path, source, file.stat().st_size)

    def add_bytes(self, path: str, data: bytes) -> None:
        """Add a file of *data*."""
        self.add(path, io.BytesIO(data), len(data))

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest."""
        data = manifest.model_dump_json(indent=1).encode()
        self._tar.addfile(_member(MANIFEST, len(data)), io.BytesIO(data))


@contextmanager
def open_writer(file: IO[bytes]) -> Iterator[ArchiveWriter]:
    """Write an archive into *file* while the block runs."""
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=_COMPRESSION) as tar:
        yield ArchiveWriter(tar)


def unpack(archive: Path, into: Mapping[str, Path]) -> Manifest:
    """Unpack the folders named in *into*, check everything, and return the manifest.

    Raises:
        ArchiveDamaged: It is cut off, changed, unsafe, or no archive of ours.
        BackupFailed: It can't be read, or there is no room.
    """
    seen: dict[str, Member] = {}
    manifest: Manifest | None = None
    try:
        with gzip.open(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                data = _content(tar, info)
                if info.name == MANIFEST:
                    manifest = _read_manifest(data)
                else:
                    seen[info.name] = _keep(data, info.name, into)
            while file.read(_BLOCK_BYTES):  # to the checksum at its very end
                pass
    except (tarfile.TarError, EOFError, zlib.error) as exc:
        raise ArchiveDamaged(f"{archive} is cut off or damaged: {exc}") from exc
    except OSError as exc:
        if exc.errno is None:  # gzip's own
            raise ArchiveDamaged(f"{archive} is cut off or damaged: {exc}") from exc
        raise BackupFailed(f"{archive} can't be unpacked: {exc.strerror}") from exc
    if manifest is None:
        raise ArchiveDamaged(f"{archive} is cut off, or no backup: it has no manifest")
    _must_be_complete(archive, manifest, seen)
    return manifest


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    """Return what is in a member; only plain files in known folders are let through."""
    safe = info.name == MANIFEST or (
        _SAFE.fullmatch(info.name) and not {".", ".."} & set(info.name.split("/"))
    )
    data = tar.extractfile(info) if safe and info.isreg() else None
    if data is None:
        raise ArchiveDamaged(f"{info.name!r} does not belong into a backup; nothing was restored")
    return data


def _read_manifest(data: IO[bytes]) -> Manifest:
    try:
        return Manifest.model_validate_json(data.read(_MAX_MANIFEST_BYTES))
    except ValidationError as exc:
        raise ArchiveDamaged("the manifest can't be read: made by a newer version?") from exc


def _keep(data: IO[bytes], name: str, into: Mapping[str, Path]) -> Member:
    """Write a member to where it is wanted, if it is; return its size and hash."""
    reader = _Hashing(data)
    folder, _, rest = name.partition("/")
    if folder in into:
        target = into[folder] / rest
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with target.open("xb") as file:
            target.chmod(0o600)
            while block := reader.read(_BLOCK_BYTES):
                file.write(block)
    else:
        while reader.read(_BLOCK_BYTES):
            pass
    return Member(path=name, size=reader.size, sha256=reader.sha256)


def _must_be_complete(archive: Path, manifest: Manifest, seen: Mapping[str, Member]) -> None:
    told = {member.path: member for member in manifest.members}
    wrong = sorted(path for path in told.keys() | seen if told.get(path) != seen.get(path))
    if wrong:
        raise ArchiveDamaged(
            f"{archive} is damaged: {len(wrong)} of its files differ from its manifest, "
            f"{wrong[0]} for one"
        )


def _member(path: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.size, info.mode = size, 0o600
    return info


class _Hashing:
    """A file to read from that knows the hash of what was read."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._hash.update(data)
        self.size += len(data)
        return data
