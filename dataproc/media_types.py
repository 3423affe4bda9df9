"""Under which type a file is served: by its name, and never one whose content a browser would run."""

from __future__ import annotations

from pathlib import PurePosixPath

PLAIN = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"

# mark-up and scripts are shown as text: whoever wrote the file is not whoever opens it
_TEXT = "css htm html ini js log md mjs py r rst sh sql svg toml txt xhtml xml yaml yml"

_TYPES = {
    "avif": "image/avif",
    "bmp": "image/bmp",
    "csv": "text/csv",
    "gif": "image/gif",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "ndjson": "application/x-ndjson",
    "ogg": "audio/ogg",
    "parquet": "application/vnd.apache.parquet",
    "pdf": "application/pdf",
    "png": "image/png",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "tsv": "text/tab-separated-values",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "zip": "application/zip",
} | dict.fromkeys(_TEXT.split(), PLAIN)


def media_type(path: str) -> str:
    """The type of the file at a path; bytes where the name tells nothing."""
    return _TYPES.get(PurePosixPath(path).suffix[1:].lower(), BYTES)
