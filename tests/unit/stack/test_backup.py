"""Archives: whole or refused; what is there is never lost."""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

from gateway.version import version
from stack.backup.create import create
from stack.backup.failures import ArchiveDamaged, BackupFailed, KeysMissing
from stack.backup.manifest import MANIFEST
from stack.backup.restore import restore, verify
from stack.backup.settings import Places
from tests.support.stack import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RUN = "abcdefghijklmno"
KEY, OTHER_KEY = Fernet.generate_key().decode(), Fernet.generate_key().decode()
SECRETS = {"KEY_ENCRYPTION_KEYS": f"{OTHER_KEY},{KEY}", "RUNNER_TOKEN": "a-token-of-the-runner"}


def places_in(data_dir: Path) -> Places:
    return Places(
        data_dir=data_dir,
        pocketbase=data_dir / "pb_data",
        runs=data_dir / "runs",
        spool=data_dir / "spool",
        secrets=data_dir / "secrets",
    )


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        yield db


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A system with one of everything."""
    places = places_in(tmp_path / "data")
    with database(places.pocketbase / "data.db") as db:
        db.execute("CREATE TABLE users (id TEXT, api_key TEXT)")
        db.execute("CREATE TABLE _migrations (file TEXT)")
        db.execute("INSERT INTO _migrations VALUES ('1752070800_add_user_api_key.js')")
        stored = f"enc:v1:{Fernet(KEY).encrypt(b'sk-alice').decode()}"
        db.execute("INSERT INTO users VALUES ('alice', ?), ('bob', '')", [stored])
    with database(places.pocketbase / "auxiliary.db") as db:
        db.execute("CREATE TABLE _logs (id TEXT)")
    (places.pocketbase / "storage" / "users").mkdir(parents=True)
    (places.pocketbase / "storage" / "users" / "avatar.png").write_bytes(b"\x89PNG")
    (places.runs / RUN).mkdir(parents=True)
    (places.runs / RUN / "meta.json").write_text("{}")
    (places.runs / RUN / "events.ndjson").write_text('{"seq":0}\n{"seq":1}\n{"seq":2,"to')
    places.spool.mkdir()
    (places.spool / "one.ndjson").write_text("{}\n")
    places.secrets.mkdir()
    (places.secrets / "key_encryption_keys").write_text(SECRETS["KEY_ENCRYPTION_KEYS"])
    return places


@pytest.fixture
def archive(places: Places, tmp_path: Path) -> Path:
    """A backup of that system."""
    return create(places, SECRETS, to=tmp_path / "backups")


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below *folder* but SQLite's, which may differ without meaning it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".db" not in path.name and path.name != "stack.lock"
    }


def users(places: Places) -> list[str]:
    with closing(sqlite3.connect(places.pocketbase / "data.db")) as db:
        return [row[0] for row in db.execute("SELECT id FROM users")]


def rewritten(archive: Path, change: Callable[[tarfile.TarInfo, bytes], bytes | None]) -> Path:
    """Return a copy of *archive* with *change* made to each member; None leaves one out."""
    copy = archive.with_name(f"changed-{archive.name}")
    with tarfile.open(archive) as old, tarfile.open(copy, "w:gz") as new:
        for info in old:
            member = old.extractfile(info)
            assert member is not None
            data = change(info, member.read())
            if data is not None:
                info.size = len(data)
                new.addfile(info, io.BytesIO(data))
    return copy


def test_what_is_restored_is_what_was_backed_up(
    places: Places, archive: Path, tmp_path: Path
) -> None:
    """Databases, files, whole lines of run logs, waiting records; secrets stay where they were."""
    new = places_in(tmp_path / "new")
    environ = {"KEY_ENCRYPTION_KEYS": KEY}

    done = restore(archive, new, environ)

    assert done.kept == []
    assert users(new) == ["alice", "bob"]
    whole = '{"seq":0}\n{"seq":1}\n'
    assert contents(tmp_path / "new") == {
        "pb_data/storage/users/avatar.png": b"\x89PNG",
        f"runs/{RUN}/events.ndjson": whole.encode(),
        f"runs/{RUN}/meta.json": b"{}",
        "spool/one.ndjson": b"{}\n",
    }
    assert (new.pocketbase / "data.db").stat().st_mode & 0o777 == 0o600
    assert new.pocketbase.stat().st_mode & 0o777 == 0o700


def test_an_archive_is_private_and_holds_no_secret_unless_asked(
    places: Places, archive: Path, tmp_path: Path
) -> None:
    """Without them it tells keys by fingerprint; with them it is enough for a new machine."""
    assert archive.stat().st_mode & 0o777 == 0o600
    told = gzip.decompress(archive.read_bytes())
    assert not [value for value in (KEY, OTHER_KEY, "a-token-of") if value.encode() in told]

    full = create(places, SECRETS, to=tmp_path / "full", with_secrets=True)
    new = places_in(tmp_path / "new")
    restore(full, new, {})

    assert full.stat().st_mode & 0o777 == 0o600
    assert (new.secrets / "key_encryption_keys").read_text().strip() == f"{OTHER_KEY},{KEY}"
    assert (new.secrets / "runner_token").read_text().strip() == "a-token-of-the-runner"
    assert (new.secrets / "runner_token").stat().st_mode & 0o777 == 0o600


def test_a_backup_is_of_one_moment_while_others_write(places: Places, tmp_path: Path) -> None:
    """A writer with an open transaction neither waits nor is seen half."""
    with database(places.pocketbase / "data.db") as db:
        db.execute("INSERT INTO users VALUES ('carol', '')")
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO users VALUES ('half', '')")
        archive = create(places, SECRETS, to=tmp_path / "backups")
        db.execute("COMMIT")

    new = places_in(tmp_path / "new")
    restore(archive, new, SECRETS)

    assert users(new) == ["alice", "bob", "carol"]


def test_what_was_there_is_kept_aside(places: Places, archive: Path) -> None:
    """Replacing asks for --force; the old data can be put back by hand."""
    (places.runs / "later").mkdir()
    (places.runs / "later" / "events.ndjson").write_text("later\n")
    before = contents(places.data_dir)

    with pytest.raises(BackupFailed, match="is not empty: with --force"):
        restore(archive, places, {})
    assert contents(places.data_dir) == before

    done = restore(archive, places, {}, force=True)

    assert not (places.runs / "later").exists()
    [runs] = [folder for folder in done.kept if folder.name.startswith(".runs.before-")]
    assert (runs / "later" / "events.ndjson").read_text() == "later\n"
    assert users(places) == ["alice", "bob"]


def test_a_running_system_is_not_replaced(places: Places, archive: Path) -> None:
    """Not a stack, nor a PocketBase or a gateway alone, not even with --force."""
    before = contents(places.data_dir)
    with (places.data_dir / "stack.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BackupFailed, match="another stack uses"):
            restore(archive, places, {}, force=True)
    with database(places.pocketbase / "data.db") as db:
        db.execute("SELECT count(*) FROM users").fetchone()
        with pytest.raises(BackupFailed, match="PocketBase is running"):
            restore(archive, places, {}, force=True)
    with (places.spool / "one.ndjson").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BackupFailed, match="a gateway is running"):
            restore(archive, places, {}, force=True)
    held_folder = os.open(places.runs, os.O_RDONLY)
    try:
        fcntl.flock(held_folder, fcntl.LOCK_SH)  # as a runner does
        with pytest.raises(BackupFailed, match="a runner is running"):
            restore(archive, places, {}, force=True)
    finally:
        os.close(held_folder)

    assert contents(places.data_dir) == before


def test_a_wrong_key_is_refused_before_anything_is_touched(places: Places, archive: Path) -> None:
    """It says which key is needed and for how many; whoever insists gets the rest."""
    (places.secrets / "key_encryption_keys").write_text(OTHER_KEY)
    before = contents(places.data_dir)

    with pytest.raises(KeysMissing, match=r"Needed: KEY_ENCRYPTION_KEYS .*\(1 users\)"):
        restore(archive, places, {}, force=True)
    assert contents(places.data_dir) == before
    manifest, missing = verify(archive, {"KEY_ENCRYPTION_KEYS": OTHER_KEY})
    assert [(use.name, use.users) for use in missing] == [("KEY_ENCRYPTION_KEYS", 1)]
    assert [use.users for use in manifest.keys] == [0, 1]

    restore(archive, places, {}, force=True, lose_keys=True)


def test_an_archive_cut_off_anywhere_is_refused(places: Places, archive: Path) -> None:
    """Nothing that is there is touched."""
    data = archive.read_bytes()
    before = contents(places.data_dir)
    for end in [*range(0, len(data), 97), len(data) - 1]:
        archive.write_bytes(data[:end])
        with pytest.raises(ArchiveDamaged):
            restore(archive, places, {}, force=True)

    assert contents(places.data_dir) == before
    assert not [path for path in places.data_dir.iterdir() if "restoring" in path.name]


def flipped(info: tarfile.TarInfo, data: bytes) -> bytes:
    return b"X" + data[1:] if info.name.endswith("avatar.png") else data


def left_out(info: tarfile.TarInfo, data: bytes) -> bytes | None:
    return None if info.name.endswith("meta.json") else data


def without_manifest(info: tarfile.TarInfo, data: bytes) -> bytes | None:
    return None if info.name == MANIFEST else data


def of_another_format(info: tarfile.TarInfo, data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "format": 2}).encode() if info.name == MANIFEST else data


@pytest.mark.parametrize("change", [flipped, left_out, without_manifest, of_another_format])
def test_a_changed_archive_is_refused(
    change: Callable[[tarfile.TarInfo, bytes], bytes | None], archive: Path, tmp_path: Path
) -> None:
    """A byte, a file or the manifest: the hashes tell."""
    changed = rewritten(archive, change)

    with pytest.raises(ArchiveDamaged):
        restore(changed, places_in(tmp_path / "new"), SECRETS)
    assert contents(tmp_path / "new") == {}


@pytest.mark.parametrize(
    "name",
    ["../escaped", "runs/../../escaped", "/tmp/escaped", "pb_data", "elsewhere/x", "runs//x"],
)
def test_a_member_that_points_elsewhere_is_refused(
    name: str, archive: Path, tmp_path: Path
) -> None:
    """Nothing is written outside the folders that a backup has."""

    def renamed(info: tarfile.TarInfo, data: bytes) -> bytes:
        if info.name.endswith("meta.json"):
            info.name = name
        return data

    with pytest.raises(ArchiveDamaged, match="does not belong"):
        restore(rewritten(archive, renamed), places_in(tmp_path / "a" / "new"), SECRETS)
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(kind: bytes, archive: Path, tmp_path: Path) -> None:
    """A link would have later members written through it."""

    def linked(info: tarfile.TarInfo, data: bytes) -> bytes:
        if info.name.endswith("meta.json"):
            info.type, info.linkname, data = kind, "/etc", b""
        return data

    with pytest.raises(ArchiveDamaged, match="does not belong"):
        restore(rewritten(archive, linked), places_in(tmp_path / "new"), SECRETS)


def test_a_damaged_database_is_neither_backed_up_nor_restored(
    places: Places, tmp_path: Path
) -> None:
    """Better a failure tonight than a useless archive in a year."""
    path = places.pocketbase / "data.db"
    with database(path) as db:
        db.execute("CREATE TABLE big (x TEXT)")
        db.executemany("INSERT INTO big VALUES (?)", [("x" * 500,)] * 200)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(-8000, os.SEEK_END)
        file.write(os.urandom(4096))

    with pytest.raises(BackupFailed, match=r"damaged|malformed"):
        create(places, SECRETS, to=tmp_path / "backups")
    assert list((tmp_path / "backups").iterdir()) == []


def test_another_programs_database_is_not_backed_up(places: Places, tmp_path: Path) -> None:
    """A folder that only looks like PocketBase's."""
    with database(places.pocketbase / "data.db") as db:
        db.execute("DROP TABLE _migrations")

    with pytest.raises(BackupFailed, match="is not PocketBase's"):
        create(places, SECRETS, to=tmp_path / "backups")


def test_a_backup_of_a_newer_version_is_refused(places: Places, tmp_path: Path) -> None:
    """Older code on a newer database would break in unexpected places."""
    with database(places.pocketbase / "data.db") as db:
        db.execute("INSERT INTO _migrations VALUES ('9999999999_of_tomorrow.js')")
    archive = create(places, SECRETS, to=tmp_path / "backups")

    with pytest.raises(BackupFailed, match=r"9999999999_of_tomorrow\.js: install that version"):
        restore(archive, places_in(tmp_path / "new"), SECRETS)


def command(data_dir: Path, *words: str, file_limit: int | None = None) -> tuple[int, str]:
    """Run the command line; return its exit status and what it said."""

    def limit() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    ended = subprocess.run(
        [sys.executable, "-m", "stack.cli", "backup", *words],
        cwd=ROOT,
        env={"DATA_DIR": str(data_dir), "PATH": os.environ["PATH"]},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_the_command_makes_lists_verifies_and_restores(places: Places, tmp_path: Path) -> None:
    """As an operator uses it."""
    status, said = command(places.data_dir, "create")
    [archive] = (places.data_dir / "backups").glob("*.tar.gz")
    assert (status, said.splitlines()[0].split()[0]) == (0, str(archive))
    assert command(places.data_dir, "list")[1].startswith(str(archive))
    assert "is whole" in command(places.data_dir, "verify", str(archive))[1]

    status, said = command(places.data_dir, "restore", str(archive))
    assert status == 1
    assert said.count("\n") == 1
    assert command(places.data_dir, "restore", str(archive), "--force")[0] == 0
    assert users(places) == ["alice", "bob"]


def test_without_room_nothing_is_left_and_nothing_is_lost(places: Places, archive: Path) -> None:
    """One line, whether a backup or a restore finds no room; what is there stays."""
    before = contents(places.data_dir)
    limit = 2000

    for words in (("create",), ("restore", str(archive), "--force")):
        status, said = command(places.data_dir, *words, file_limit=limit)
        assert (status, said.count("\n")) == (1, 1), said

    assert contents(places.data_dir) == before
    assert users(places) == ["alice", "bob"]


def test_a_checkout_has_the_command_at_its_top(tmp_path: Path) -> None:
    """It works from any folder."""
    ended = subprocess.run(
        [ROOT / "opencode-multiuser", "--version"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=50,
    )

    assert ended.stdout.decode().strip() == version()


def test_nothing_to_back_up_is_one_line(tmp_path: Path) -> None:
    """A wrong DATA_DIR is the likely reason."""
    status, said = command(tmp_path, "create")

    assert status == 1
    assert said == f"opencode-multiuser: there is no database in {tmp_path}/pb_data: set DATA_DIR\n"


def test_in_a_mount_point_the_old_data_is_kept_within(
    places: Places, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume in a container: nothing can be renamed across its border."""
    monkeypatch.setattr(type(archive), "is_mount", lambda path: path == places.pocketbase)

    done = restore(archive, places, {}, force=True)

    [kept] = [folder for folder in done.kept if folder.parent == places.pocketbase]
    assert (kept / "data.db").exists()
    assert users(places) == ["alice", "bob"]
    assert {path.name for path in places.pocketbase.iterdir()} == {
        *("data.db", "auxiliary.db", "storage", kept.name)
    }
