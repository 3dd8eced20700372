#!/usr/bin/python3
"""The other end of tests/vm/guest.py: runs one command after the other for the host, over a virtio-serial port.

Request: one line of JSON {"argv", "timeout", "stdin": bytes that follow}. Answer: one line of JSON {"status",
"stdout", "stderr": bytes that follow}; status is null when the time was up. On its start it says {"boot": id}.
"""

import json
import os
import signal
import subprocess
import time

PORT = "/dev/virtio-ports/agent"


class Port:
    """The port as a stream. While the host is not connected, reading waits."""

    def __init__(self) -> None:
        self._fd = os.open(PORT, os.O_RDWR)
        self._buffer = bytearray()

    def _more(self) -> None:
        while not (data := os.read(self._fd, 1 << 16)):
            time.sleep(0.05)  # the host is not there
        self._buffer += data

    def line(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            self._more()
        return self._take(end + 1)

    def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]


def run(argv: list[str], stdin: bytes, timeout: float) -> tuple[int | None, bytes, bytes]:
    child = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
    )
    try:
        out, err = child.communicate(stdin, timeout)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
        return None, out, err
    return child.returncode, out, err


def main() -> None:
    port = Port()
    with open("/proc/sys/kernel/random/boot_id") as file:
        port.write(json.dumps({"boot": file.read().strip()}).encode() + b"\n")
    while True:
        request = json.loads(port.line())
        stdin = port.exactly(request["stdin"])
        try:
            status, out, err = run(request["argv"], stdin, request["timeout"])
        except OSError as error:
            status, out, err = 127, b"", str(error).encode()
        answer = {"status": status, "stdout": len(out), "stderr": len(err)}
        port.write(json.dumps(answer).encode() + b"\n" + out + err)


if __name__ == "__main__":
    main()
