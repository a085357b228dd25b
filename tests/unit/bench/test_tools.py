"""Where the benchmark's tools come from. What they would be fetched from stands still here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench import tools

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "#!/bin/sh\necho 'wrk debian/4.1.0-3 [epoll]'\nexit 1\n"
APT_CACHE = """#!/bin/sh
case $1 in
  show) echo Package: wrk;;
  depends) case $3 in wrk) printf '  Depends: libc6\\n |Depends: libluajit\\n';; esac;;
esac
"""
APT_GET = """#!/bin/sh
while [ "$1" != download ]; do shift; done
shift
for name; do touch "$name.deb"; done
"""
DPKG = f"""#!/bin/sh
/bin/mkdir -p "$3/usr/bin" "$3/usr/lib"
case $2 in
  */wrk.deb) printf '%s' "{PROGRAM.replace('"', "")}" > "$3/usr/bin/wrk"
    /bin/chmod +x "$3/usr/bin/wrk";;
  *) /bin/touch "$3/usr/lib/libluajit.so.2";;
esac
"""
DPKG_QUERY = """#!/bin/sh
[ "$4" = libc6 ] && echo installed
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that programs come from."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(tools, "_ADMIN_FOLDERS", ())
    return folder


def put(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        program = folder / name.replace("_", "-")
        program.write_text(text)
        program.chmod(0o755)


def test_a_tool_of_this_machine_is_used(programs: Path, tmp_path: Path) -> None:
    """Nothing is fetched then."""
    put(programs, wrk=PROGRAM, apt_get="#!/bin/sh\nexit 9\n")

    tool = tools.find("wrk", folder=tmp_path / "tools")

    assert (tool.program, tool.version) == (programs / "wrk", "4.1.0")
    assert not tool.environment
    assert not (tmp_path / "tools").exists()


def test_a_missing_tool_is_unpacked_with_the_libraries_that_are_missing(
    programs: Path, tmp_path: Path
) -> None:
    """And a second time it is there."""
    put(programs, wrk="#!/bin/sh\nexit 127\n", apt_get=APT_GET, dpkg=DPKG)
    put(programs, apt_cache=APT_CACHE, dpkg_query=DPKG_QUERY)

    tool = tools.find("wrk", folder=tmp_path / "tools")
    put(programs, apt_get="#!/bin/sh\nexit 9\n")

    assert tool.program == tmp_path / "tools" / "wrk" / "usr" / "bin" / "wrk"
    assert tool.environment == {"LD_LIBRARY_PATH": str(tmp_path / "tools/wrk/usr/lib")}
    assert tools.find("wrk", folder=tmp_path / "tools") == tool


def test_what_can_not_be_fetched_is_said(programs: Path, tmp_path: Path) -> None:
    """So that the table can say why a part of it is left out; nothing half made stays."""
    put(programs, wrk="#!/bin/sh\nexit 127\n", apt_cache=APT_CACHE, dpkg_query=DPKG_QUERY)
    put(programs, dpkg=DPKG, apt_get="#!/bin/sh\necho 'E: no network' >&2\nexit 100\n")

    with pytest.raises(tools.ToolMissing, match="no network"):
        tools.find("wrk", folder=tmp_path / "tools")

    assert not list((tmp_path / "tools").iterdir())


def test_without_debian_s_programs_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another system, say."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "_ADMIN_FOLDERS", ())

    with pytest.raises(tools.ToolMissing, match="wrk is not installed, and without apt-get"):
        tools.find("wrk", folder=tmp_path / "tools")
