"""Gives the documentation's site (mkdocs.yml) the repository's layout, so that links lead where they do there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

ROOT = Path(__file__).resolve().parent.parent


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Lay docs/ and the Markdown files beside it out as in the repository, with the changelog as a page.

    Args:
        files: What lies in docs/, and the theme's files.
        config: That of mkdocs.yml.
    """
    laid = [path.relative_to(ROOT).as_posix() for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*")])]
    pages = [
        File(name, str(ROOT), config.site_dir, config.use_directory_urls) for name in laid if (ROOT / name).is_file()
    ]
    theme = [file for file in files if file.abs_src_path and not file.abs_src_path.startswith(config.docs_dir)]
    # Catkin's form of reStructuredText is Markdown but for the line above the title.
    _, title, _, *text = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8").splitlines(keepends=True)
    changelog = File.generated(config, "CHANGELOG.md", content="".join(["# ", title, *text]))
    return Files([*theme, *pages, changelog])


def on_page_markdown(markdown: str, **_: object) -> str:
    """Let links to the changelog lead to its page."""
    return markdown.replace("(CHANGELOG.rst)", "(CHANGELOG.md)")
