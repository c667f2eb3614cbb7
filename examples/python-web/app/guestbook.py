"""A guest book: one line for each visitor, kept in a volume."""

import os
from pathlib import Path

from flask import Flask, Response, request

BOOK = Path("/var/lib/guestbook/lines.txt")
app = Flask(__name__)


@app.get("/")
def read() -> Response:
    """Shows all lines."""
    lines = BOOK.read_text(encoding="utf-8") if BOOK.exists() else ""
    return Response(lines, mimetype="text/plain")


@app.post("/")
def write() -> Response:
    """Adds one line."""
    line = request.get_data(as_text=True).strip().replace("\n", " ")[:200]
    with BOOK.open("a", encoding="utf-8") as book:
        book.write(f"{line}\n")
    return Response("thank you\n", status=201, mimetype="text/plain")


@app.get("/health")
def health() -> dict[str, object]:
    """Says that it works, and as whom."""
    return {"ok": True, "uid": os.getuid(), "gid": os.getgid()}
