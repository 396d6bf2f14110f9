"""WHAT lies on disk: files written whole or not at all (`io`), and the records in them (`schema`, `bundle`)."""

from msgspec.structs import replace

from cnnbench.records.io import (
    no_room,
    read,
    read_bytes,
    read_json,
    replacing,
    replacing_folder,
    require_writable,
    says_no_room,
    sha256,
    temporary_folder,
    write,
)

__all__ = [
    "no_room",
    "read",
    "read_bytes",
    "read_json",
    "replace",
    "replacing",
    "replacing_folder",
    "require_writable",
    "says_no_room",
    "sha256",
    "temporary_folder",
    "write",
]
