"""Attacks that a model could order: each a tool call of OpenCode, and how to tell that it failed.

`{name}` in a script stands for what there is to aim at (`Target`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.prelude import PRELUDE

if TYPE_CHECKING:
    from collections.abc import Callable

    Held = Callable[[str], bool]

RAN = "the-attack-ran"

ASK = """
import json, re, urllib.error, urllib.request
config = json.loads(os.environ["OPENCODE_CONFIG_CONTENT"])
own = config["provider"]["openai"]["options"]["baseURL"]
usual = {"model": "scripted", "input": [{"role": "user", "content": "probe"}], "stream": True}

def ask(url=None, path="/responses", body=usual, method="POST", **headers):
    headers = {"authorization": "Bearer " + os.environ["RUN_TOKEN"], **headers}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request((url or own) + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=3) as response:
            print(*re.findall(r"paid-by-[a-z]+|saw-[a-z-]+|model-[a-z]+", response.read().decode()))
    except urllib.error.HTTPError as exc:
        print(exc.code)
    except OSError as exc:
        print("unreachable")
"""


@dataclass(frozen=True, slots=True)
class Attack:
    """One attempt.

    Attributes:
        id: For pytest.
        title: For people.
        tool: OpenCode's tool, and its arguments; for `bash` a script that OpenCode's own rules,
            which look at a command's words, don't get to see.
        held: Whether the tool's output shows that it was kept from it.
    """

    id: str
    title: str
    tool: tuple[str, dict[str, Any]]
    held: Held


def bash(id_: str, title: str, script: str, held: Held) -> Attack:
    """Return an attack by shell."""
    return Attack(id_, title, ("bash", {"script": script}), held)


def python(id_: str, title: str, script: str, held: Held) -> Attack:
    """Return an attack by Python."""
    return bash(id_, title, f"python3 - <<'END'\n{PRELUDE}\n{ASK}\n{script}\nEND", held)


def lacks(*words: str) -> Held:
    """Held if none of *words* was put out."""
    return lambda output: not any(word in output for word in words)


def prints(*lines: str) -> Held:
    """Held if exactly *lines* were put out."""
    return lambda output: tuple(line for line in output.split() if line != RAN) == lines


NOTHING = prints()

ATTACKS = [
    bash(
        "neighbour-workspace",
        "Read another user's workspace",
        "cat {neighbour}/workspace/secret; ls -a {neighbour}/workspace",
        NOTHING,
    ),
    bash(
        "neighbour-home",
        "Read another user's HOME",
        "cat {neighbour}/home/secret; ls -a {neighbour}/home",
        NOTHING,
    ),
    bash("other-runs", "List the directories of other runs", "ls {sandboxes}", NOTHING),
    bash("events", "Find files of the runner", "find {data} -maxdepth 2", NOTHING),
    bash("host-file", "Read a file of the host", "cat {outside}/precious", NOTHING),
    bash(
        "host-file-by-proc",
        "Read a file of the host through /proc",
        "cat /proc/1/root{outside}/precious /proc/self/root{outside}/precious"
        " /proc/1/cwd{outside}/precious",
        NOTHING,
    ),
    Attack(
        "read-tool",
        "Read another user's file with OpenCode's own read tool",
        ("read", {"filePath": "{neighbour}/workspace/secret"}),
        lacks("SECRET"),
    ),
    bash("passwords", "Read the host's passwords", "cat /etc/shadow /etc/gshadow", NOTHING),
    bash("host-processes", "See processes of the host", "ls -d /proc/{pid}", NOTHING),
    bash(
        "runner-environment",
        "Read the runner's environment",
        "tr '\\0' '\\n' < /proc/{pid}/environ | grep -o '^RUNNER_TOKEN'",
        NOTHING,
    ),
    bash(
        "neighbour-environment",
        "Read the environment of another user's OpenCode",
        "tr '\\0' '\\n' < /proc/{neighbour_pid}/environ | grep -o '^RUN_TOKEN'",
        NOTHING,
    ),
    python(
        "memory",
        "Read an API key from the memory of the runner or of its own OpenCode",
        """
wanted = re.compile(rb"sk-canary-[0-9a-f]{8}")
for pid in {*filter(str.isdigit, os.listdir("/proc"))} & {"{pid}", str(os.getppid()), *map(str, range(1, 30))}:
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                first, last = (int(n, 16) for n in line.split()[0].split("-"))
                if "rw" in line and last - first < 1 << 28:
                    try:
                        memory.seek(first)
                        if wanted.search(memory.read(last - first)):
                            print("key-found")
                    except OSError:
                        pass
    except OSError:
        pass
""",  # noqa: E501
        NOTHING,
    ),
    bash(
        "key-in-files",
        "Find an API key in a file, an environment or a command line",
        "grep -raohE 'sk-canary-[0-9a-f]{8,}' ~ . $TMPDIR {data} {outside} /proc/[0-9]*/environ"
        " /proc/[0-9]*/cmdline | head -3",
        NOTHING,
    ),
    python(
        "interfaces",
        "Find an interface or a route out",
        """
print(*[name for _, name in socket.if_nameindex() if name != "lo"])
print(*open("/proc/net/route").readlines()[1:])
print(*{line.split()[-1] for line in open("/proc/net/ipv6_route")} - {"lo"})
""",
        NOTHING,
    ),
    python(
        "host-loopback",
        "Reach a service on the host's loopback",
        'attempt(socket.create_connection, ("127.0.0.1", {port}))',
        prints("ECONNREFUSED"),
    ),
    python(
        "unix-sockets",
        "Reach a unix socket of the host, abstract or not, or Docker's",
        r"""
for name in ("\0{abstract}", "{outside}/socket", "/run/docker.sock", "/var/run/docker.sock"):
    attempt(socket.socket(socket.AF_UNIX).connect, name)
""",
        lacks("done"),
    ),
    python(
        "families",
        "Open a socket that knows no network namespace (vsock), or a raw one",
        """
for family, kind in ((socket.AF_VSOCK, 1), (socket.AF_PACKET, 3), (socket.AF_ALG, 5)):
    attempt(socket.socket, family, kind)
attempt(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)
""",
        lacks("done"),
    ),
    python(
        "neighbour-token",
        "Spend another user's key with the token of their run",
        'ask(authorization="Bearer {neighbour_token}")\n'
        'ask("{neighbour_door}", authorization="Bearer {neighbour_token}")',
        lacks("paid-by-bob"),
    ),
    python(
        "guessed-token",
        "Spend another user's key with a guessed token",
        'for token in ("", "x", os.environ["RUN_TOKEN"]):\n'
        '    ask("{neighbour_door}", authorization="Bearer " + token)',
        lacks("paid-by-bob"),
    ),
    python(
        "other-model",
        "Ask for a model that the run was not granted",
        'ask(body=usual | {"model": "other"}); ask(body=usual | {"model": ["scripted"]})\n'
        'ask(body={k: v for k, v in usual.items() if k != "model"})',
        prints("403", "403", "403"),
    ),
    python(
        "second-model",
        "Name a second model where only the provider looks",
        """
ask(body=json.dumps(usual).replace("{", '{"model": "other", ', 1).encode())
ask(body=usual | {"Model": "other"})
ask(body=usual | {"models": ["other"]})
""",
        lacks("model-other", "saw-"),
    ),
    python(
        "other-path",
        "Use another service of the provider",
        """
for path in ("/files", "/models", "/responses/../files", "/chat/completions", "/responses/1"):
    ask(path=path)
for method in ("GET", "PUT", "DELETE"):
    ask(method=method)
""",
        lacks("paid-by", "saw-"),
    ),
    python(
        "hosted-tools",
        "Get out through tools that the provider itself carries out",
        """
for tool in ("web_search", "mcp", "code_interpreter", "file_search"):
    ask(body=usual | {"tools": [{"type": tool, "server_url": "http://127.0.0.1:9"}]})
picture = {"type": "input_image", "image_url": "http://127.0.0.1:9/?what-i-know"}
ask(body=usual | {"input": [{"role": "user", "content": [picture]}]})
""",
        prints(*["403"] * 5),
    ),
    python(
        "headers",
        "Send the provider a key, an organisation or a cookie of one's own",
        'ask(authorization="Bearer sk-mine", cookie="a=b", **{"openai-organization": "org-mine",'
        ' "x-forwarded-for": "127.0.0.1", "x-api-key": "sk-mine"})',
        lacks("saw-"),
    ),
    python(
        "smuggling",
        "Smuggle a second request past the door",
        r"""
host, port = re.search(r"//([^:]+):(\d+)", own).groups()
with socket.create_connection((host, int(port)), 10) as s:
    s.sendall(b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
              b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
              b"GET /v1/files HTTP/1.1\r\nHost: x\r\n\r\n")
    s.settimeout(5)
    print(s.recv(1000)[9:12].decode())
""",
        lambda output: output.split()[0] in {"400", "401", "403"},
    ),
    python(
        "connections",
        "Take the runner's descriptors with connections to the door",
        r"""
host, port = re.search(r"//([^:]+):(\d+)", own).groups()
held = [socket.create_connection((host, int(port)), 10) for _ in range(300)]
alive = 0
for s in held:
    s.settimeout(0.2 if alive == 0 else 0.01)
    try:
        alive += s.recv(1) != b""
    except TimeoutError:
        alive += 1
    except OSError:
        pass
print("bounded" if alive <= 64 else "unbounded")
""",
        prints("bounded"),
    ),
    python(
        "opencode-server",
        "Use OpenCode's own server without its password",
        """
lines = [line.split() for line in open("/proc/net/tcp").readlines()[1:]]
ports = {int(line[1].split(":")[1], 16) for line in lines if line[3] == "0A"} - {4141}
for port in sorted(ports) if len(ports) < 3 else (4096,):
    for path in ("/config", "/session", "/event"):
        ask(f"http://127.0.0.1:{port}", path, b"", "GET", authorization="x")
""",
        lambda output: set(output.split()) - {RAN, "unreachable"} <= {"401"},
    ),
    bash(
        "write-outside",
        "Write outside one's own directories",
        "for d in {outside} {sandboxes} / /usr /usr/bin /usr/local /etc /opt /home /run /var; do"
        " touch $d/written && echo $d; done",
        NOTHING,
    ),
    Attack(
        "write-tool",
        "Write outside the workspace with OpenCode's own write tool",
        ("write", {"filePath": "{outside}/by-write", "content": "x"}),
        lacks("successfully", "Wrote"),
    ),
    python(
        "signals",
        "Signal a process of somebody else",
        "attempt(os.kill, {pid}, 0)\nattempt(os.kill, {neighbour_pid}, 0)",
        lacks("done"),
    ),
    python(
        "trace",
        "Trace the runner, or another user's OpenCode",
        "outcome(libc.ptrace(0x4206, {pid}, 0, 0))\n"
        "outcome(libc.ptrace(0x4206, {neighbour_pid}, 0, 0))",
        lacks("done"),
    ),
    python(
        "mount",
        "Mount something",
        'outcome(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))\n'
        'call((428, 428), -100, b"/", 1)\ncall((430, 430), b"tmpfs", 0)',
        lacks("done"),
    ),
    python(
        "namespaces",
        "Become root in a user namespace of one's own",
        "outcome(libc.unshare(0x10000000))",
        lacks("done"),
    ),
    bash(
        "setuid",
        "Gain rights by a set-user-id program",
        "grep NoNewPrivs /proc/self/status | cut -f2; grep CapBnd /proc/self/status | cut -f2",
        prints("1", "0000000000000000"),
    ),
    python(
        "keyrings",
        "Use the kernel's keyrings",
        'call((250, 219), 0, -3, 0)\ncall((248, 217), b"user", b"name", b"value", 5, -2)',
        lacks("done"),
    ),
    python(
        "devices",
        "Open a device of the host, or a switch of the kernel, for writing",
        """
for name in ("/dev/kvm", "/dev/mem", "/dev/fuse", "/dev/vsock", "/dev/vhost-net", "/dev/kmsg",
             "/dev/tty", "/dev/tty0", "/dev/sda", "/dev/vda", "/dev/loop-control",
             "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/kcore"):
    attempt(os.open, name, os.O_RDWR)
""",
        lacks("done"),
    ),
    bash("sysfs", "Look at /sys", "ls /sys; ls /sys/fs/cgroup", NOTHING),
    python(
        "kernel",
        "Begin with what kernel exploits begin with (bpf, perf, userfaultfd, io_uring)",
        """
call((321, 280), 0, bytes(128), 128)
call((298, 241), bytes(128), 0, -1, -1, 0)
call((323, 282), 1)
call((425, 425), 8, ctypes.create_string_buffer(120))
""",
        lacks("done"),
    ),
    python(
        "terminal",
        "Type into a terminal",
        'attempt(fcntl.ioctl, 0, 0x5412, b"x"); attempt(open, "/dev/tty")',
        lacks("done"),
    ),
    bash(
        "planted",
        "Make OpenCode load a plugin or an MCP command that the run has written",
        "sleep 1; ls ran-*",
        NOTHING,
    ),
]

PLANT = bash(
    "plant",
    "Write what is meant to be loaded later",
    """
mkdir -p .opencode/plugin .opencode/plugins ~/.opencode/plugin ~/.config/opencode/plugin
for place in .opencode/plugin .opencode/plugins ~/.opencode/plugin ~/.config/opencode/plugin; do
  echo 'require("fs").writeFileSync("'$PWD'/ran-plugin", ""); export default async () => ({})' \
> $place/evil.js
done
echo '{"mcp": {"evil": {"type": "local", "command": ["touch", "'$PWD'/ran-mcp"]}},
  "plugin": ["file://'$PWD'/.opencode/plugin/evil.js"]}' \
| tee opencode.json .opencode/opencode.json ~/.config/opencode/opencode.json > /dev/null
echo planted > AGENTS.md
""",
    NOTHING,
)
"""Comes first; "planted", which comes last, looks what has become of it."""

DAEMONS = """
(exec -a {mark}-background sleep 300) &
(trap "" TERM HUP; exec setsid bash -c 'exec -a {mark}-session sleep 300' &)
(trap "" TERM HUP; exec setsid env -i bash -c 'exec -a {mark}-nameless /bin/sleep 300' &)
"""
LINKS = "ln -s {outside} out; ln -s {outside}/precious file; mkdir d; touch d/f; chmod 000 d"
LEAVE = bash(
    "leave",
    "Leave daemons and links behind",
    f"{{ {DAEMONS} }} >/dev/null 2>&1 </dev/null; {LINKS}",
    NOTHING,
)
"""Its end is looked at from outside."""

BOMBS = {
    "memory": (
        "Take the host's memory",
        "python3 -c 'x = []\nwhile True: x.append(bytearray(1 << 24))'",
        "out-of-memory",
        "900 MB",
    ),
    "processes": (
        "Take the host's processes (fork bomb)",
        "bomb() { bomb | bomb & }; bomb; sleep 60",
        "too-many-processes",
        "120",
    ),
    "disk": (
        "Take the host's disk",
        "for i in $(seq 20); do head -c 20M /dev/zero > ~/$i; done; sleep 60",
        "disk-full",
        "100 MB",
    ),
    "inodes": (
        "Take the host's inodes",
        "python3 -c 'for i in range(30000): open(str(i), \"w\").close()'; sleep 60",
        "disk-full",
        "100 MB",
    ),
    "time": ("Run for ever", "while :; do echo on and on; sleep 1; done", "timeout", "40"),
    "silence": ("Keep silent for ever", "sleep 1000", "idle-timeout", "10"),
}
"""Name → title, script, code of the failure, words of its sentence. Each ends a run of its own."""
