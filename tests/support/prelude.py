"""What attacks that are written in Python begin with, inside a sandbox."""

PRELUDE = """
import ctypes, errno, fcntl, os, platform, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
first = 0 if platform.machine() == "x86_64" else 1

def outcome(result):
    print("done" if result >= 0 else errno.errorcode[ctypes.get_errno()])

def call(numbers, *arguments):
    outcome(libc.syscall(numbers[first], *arguments))

def attempt(action, *arguments):
    try:
        action(*arguments)
    except OSError as exc:
        print(errno.errorcode[exc.errno])
    else:
        print("done")
"""
