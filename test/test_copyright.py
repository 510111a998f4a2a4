# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Every source file says whose it is and under which licence, in the form that REUSE and ruff's CPY001 read."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINES = re.compile(r"^# Copyright 20\d\d\S* \w.*\n# SPDX-License-Identifier: Apache-2\.0$", re.MULTILINE)


def test_every_source_file_has_the_copyright_lines():
    folders = ("launch", "msg", "rt_panoptic_ros", "scripts", "test")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    sources = [ROOT / "CMakeLists.txt", ROOT / "Makefile", ROOT / "setup.py"]
    sources += [path for path in files if path.suffix in (".py", ".msg") or path.read_bytes()[:2] == b"#!"]
    assert {path.relative_to(ROOT).parts[0] for path in sources} > set(folders)
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sources}
    assert [name for name, text in texts.items() if not LINES.search(text)] == []
