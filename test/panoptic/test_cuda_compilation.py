"""The kernels compile for CUDA, also on machines without a GPU (Warp brings NVRTC)."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import warp as wp

pytestmark = pytest.mark.skipif(
    not wp.is_cuda_available() and not hasattr(wp, "compile_aot_module"),
    reason="this Warp can't compile for CUDA without a GPU",
)


@pytest.mark.parametrize(
    "arch", [pytest.param(87, id="Orin"), pytest.param(90, id="Hopper", marks=pytest.mark.exhaustive)]
)
@pytest.mark.parametrize(
    "module",
    [
        "inference.device_input",
        "network.half_kernels",
        *(f"panoptic.{name}" for name in ("query_boxes", "suppression", "masks", "fusion_kernels", "semantics")),
    ],
)
def test_kernels_compile(module: str, arch: int, tmp_path: Path) -> None:
    if module.startswith("network"):
        pytest.importorskip("torch", reason="torch is not installed")
    kernels = importlib.import_module(f"rt_panoptic_ros.{module}")
    wp.compile_aot_module(kernels, arch=arch, module_dir=str(tmp_path), use_ptx=True)
    code = next(tmp_path.glob("*.ptx")).read_text()
    assert f".target sm_{arch}" in code
    assert code.count(".entry") == Path(kernels.__file__).read_text().count("@wp.kernel") > 0
