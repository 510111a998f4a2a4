# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Gives the documentation's site (mkdocs.yml) the repository's layout, so that links lead where they do there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("*.md", "docs/**/*", "LICENSE", "CITATION.cff", "package.xml")
"""What the site is made of: the pages, their pictures, and the files that pages link to."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Lay the parts out as in the repository, with the changelog as a page.

    Args:
        files: What lies in docs/, and the theme's files.
        config: That of mkdocs.yml.
    """
    paths = [path for part in PARTS for path in sorted(ROOT.glob(part)) if path.is_file()]
    parts = [
        File(path.relative_to(ROOT).as_posix(), str(ROOT), config.site_dir, config.use_directory_urls) for path in paths
    ]
    theme = [file for file in files if file.abs_src_path and not file.abs_src_path.startswith(config.docs_dir)]
    # Catkin's form of reStructuredText is Markdown but for the line above the title.
    _, title, _, *text = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8").splitlines(keepends=True)
    changelog = File.generated(config, "CHANGELOG.md", content="".join(["# ", title, *text]))
    return Files([*theme, *parts, changelog])


def on_page_markdown(markdown: str, **_: object) -> str:
    """Let links to the changelog lead to its page."""
    return markdown.replace("(CHANGELOG.rst)", "(CHANGELOG.md)")
