"""What outputs may hold, and the closed network, without a notebook kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tools.notebooks.run import OFFLINE, _tidy, output_problems


def test_the_network_guard_leaves_this_machine_open():
    program = (
        "import socket, os\n"
        "server = socket.create_server(('127.0.0.1', 0)); socket.create_connection(server.getsockname()).close()\n"
        "socket.getaddrinfo('localhost', 80); socket.getaddrinfo('::1', 80); socket.socketpair()[0].close()\n"
        "for attempt in (lambda: socket.getaddrinfo('127.0.0.1.example.org', 80),\n"
        "                lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9)),\n"
        "                lambda: socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))):\n"
        "    try: attempt(); print('open')\n"
        "    except OSError as error: print('network is closed' in str(error))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(OFFLINE)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["True"] * 3, "")


def problems_with(*outputs: nbformat.NotebookNode, root: Path = Path("/course")) -> list[str]:
    cell = nbformat.v4.new_code_cell("x", id="05-001", outputs=list(outputs))
    return output_problems(nbformat.v4.new_notebook(cells=[cell]), root, "notebooks/05_means")


def shown(data: dict, metadata: dict | None = None) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", data=data, metadata=metadata or {})


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        (shown({"image/png": "AAAA"}), shown({"image/png": "AAAA"}, {"image/png": {"alt": "two clusters"}})),
        (shown({"image/svg+xml": "<svg/>"}), shown({"image/svg+xml": "<svg/>"}, {"image/svg+xml": {"alt": "a line"}})),
        (shown({"text/html": '<img alt=" " src="a.png">'}), shown({"text/html": '<img alt="a line" src="a.png">'})),
        (shown({"text/html": "<svg><path/></svg>"}), shown({"text/html": "<svg><title>a line</title></svg>"})),
        (shown({"text/html": "<svg></svg>"}), shown({"text/html": '<svg aria-label="a line"></svg>'})),
        (shown({"text/markdown": "![](a.png)"}), shown({"text/markdown": "![a line](a.png)"})),
    ],
)
def test_pictures_need_alt_text(bad: nbformat.NotebookNode, good: nbformat.NotebookNode):
    assert len(problems_with(bad)) == 1
    assert problems_with(good) == []


def test_paths_are_found_in_texts_but_not_in_embedded_pictures():
    assert problems_with(shown({"text/html": "<p>saved in /course/runs</p>"}))
    assert problems_with(shown({"text/html": '<a href="/course/runs">runs</a>'}))
    assert not problems_with(shown({"text/html": '<img alt="a" src="data:image/png;base64,AA/course/AA">'}))
    assert not problems_with(nbformat.v4.new_output("stream", name="stdout", text="see /courses and /course.md"))


def test_streams_are_joined_and_widgets_give_way_to_their_twins():
    pieces = [
        nbformat.v4.new_output("stream", name="stdout", text=text) for text in ("10 %\r50 %", "\r100 %\n", "end\n")
    ]
    widget = shown({"application/vnd.jupyter.widget-view+json": {"model_id": "f00"}, "text/plain": "HBox()"})
    twin = '<img alt="two classes" src="data:,">'
    with_twin = shown({"application/vnd.jupyter.widget-view+json": {"model_id": "f00"}, "text/html": twin})
    tidy, kept = _tidy([*pieces, widget, with_twin])
    assert tidy.text == "100 %\nend\n"
    assert kept.data == {"text/html": twin}
