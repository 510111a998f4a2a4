# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""docs/reliability.md's table of faults says what the tests are marked with."""

from __future__ import annotations

from conftest import ROOT

from scripts.faults import Fault, declared_faults, fault_table, shown_faults

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_the_page_shows_the_faults_that_are_tested() -> None:
    faults = declared_faults()
    remedy = "python -m scripts.faults --write docs/reliability.md"
    assert shown_faults(PAGE) == faults, f"expected all faults that are tested, in order: {remedy}"
    assert len({fault.breaks for fault in faults}) == len(faults)


TESTS = """
@pytest.mark.parametrize("kind", [pytest.param(1, marks=pytest.mark.fault("a", "b")), 2])
def test_first(kind): ...

@pytest.mark.fault("c", "d "
    "e")
def test_second(): ...
"""


def test_a_table_has_the_marks_in_order_and_the_worst_recovery(tmp_path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    faults = declared_faults(tmp_path)
    assert faults == [Fault("a", "b", "test_some.py::test_first"), Fault("c", "d e", "test_some.py::test_second")]
    table = fault_table(faults, {"a": {"result": 0.25}})
    page = f"# Page\n\n<!-- faults: made by `python -m scripts.faults` -->\n{table}<!-- end of faults -->\n\nMore.\n"
    assert shown_faults(page) == faults
    assert "| a | b | result after 0.25 s |" in table
    assert "| c | d e | not run here |" in table
    assert shown_faults("# Page\n") == []
