# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The COCO-panoptic format: segments counted exactly, files read back, the real sample unchanged by a round trip."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from coco_cases import read_coco_panoptic, result_from_segments
from conftest import DATA
from hypothesis import given, settings
from hypothesis import strategies as st

from rt_panoptic_ros.datasets.coco_panoptic import (
    CocoPanopticWriter,
    decode_ids,
    encode_ids,
    panoptic_segments,
    read_segments,
)
from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.records import VOID, DetectionTable, PanopticResult

SAMPLE = DATA / "coco_panoptic_sample"
COCO = load_class_table("coco")  # its dataset ids are not its class ids
PERSON, CAR = 0, 2
STUFF = tuple(entry.id for entry in COCO.classes if not entry.thing)


def random_result(seed: int, height: int, width: int, objects: int) -> PanopticResult:
    """Blocks of stuff, of void, of things without an object, and objects in several pieces; some may be hidden."""
    rng = np.random.default_rng(seed)
    values = np.array([*rng.choice(STUFF, 3), PERSON, VOID], np.uint8)
    semantic = np.kron(rng.choice(values, (height, width)), np.ones((3, 2), np.uint8))[:height, :width]
    instance = np.zeros((height, width), np.uint16)
    class_ids = rng.choice([PERSON, CAR], objects).astype(np.uint8)
    for number, class_id in enumerate(class_ids, 1):
        where = rng.random((height, width)) < rng.choice([0.02, 0.2])
        semantic[where], instance[where] = class_id, number
    boxes = np.zeros((objects, 4), np.int32)
    areas = np.bincount(instance.ravel(), minlength=objects + 1)[1:].astype(np.uint32)
    scores = np.sort(rng.random(objects).astype(np.float32))[::-1]
    return PanopticResult(semantic, instance, DetectionTable(class_ids, scores, boxes.astype(np.float32), boxes, areas))


results = st.builds(
    random_result,
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    objects=st.integers(0, 12),
)


def assert_same_partition(left: np.ndarray, right: np.ndarray) -> None:
    """The same pixels are void, and ids correspond one to one."""
    np.testing.assert_array_equal(left == 0, right == 0)
    pairs = np.unique(np.stack([left.ravel(), right.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(left)) == len(np.unique(right))


class TestSegments:
    @given(result=results)
    def test_each_segment_is_what_its_pixels_are(self, result: PanopticResult) -> None:
        ids, segments = panoptic_segments(result, COCO)
        assert sorted(np.unique(ids[ids > 0])) == [segment.id for segment in segments]
        by_dataset_id = {entry.dataset_id: entry for entry in COCO.classes}
        for segment in segments:
            mask = ids == segment.id
            rows, columns = np.nonzero(mask)
            assert segment.area == len(rows)
            assert segment.bbox == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
            entry = by_dataset_id[segment.category_id]
            assert set(result.semantic[mask]) == {entry.id}
            assert len(set(result.instance[mask])) == 1
            assert (segment.isthing, segment.iscrowd) == (int(entry.thing), 0)
            assert entry.thing == bool(result.instance[mask][0])

    @given(result=results)
    def test_each_object_and_each_stuff_class_is_one_segment_and_the_rest_is_void(self, result: PanopticResult) -> None:
        ids, segments = panoptic_segments(result, COCO)
        is_stuff = np.isin(result.semantic, STUFF) & (result.instance == 0)
        np.testing.assert_array_equal(ids > 0, is_stuff | (result.instance > 0))
        stuff = [segment.category_id for segment in segments if not segment.isthing]
        assert max(Counter(stuff).values(), default=1) == 1
        assert len(stuff) == len(set(result.semantic[is_stuff]))
        assert sum(segment.isthing for segment in segments) == len(set(result.instance[result.instance > 0]))

    @given(result=results)
    def test_a_result_survives_the_round_trip(self, result: PanopticResult) -> None:
        ids, segments = panoptic_segments(result, COCO)
        back = result_from_segments(ids, segments, COCO)
        np.testing.assert_array_equal(back.semantic, np.where(ids > 0, result.semantic, VOID))
        assert_same_partition(back.instance, result.instance)
        again, again_segments = panoptic_segments(back, COCO)
        assert_same_partition(again, ids)
        key = [(segment.category_id, segment.area, segment.bbox) for segment in segments]
        assert [(segment.category_id, segment.area, segment.bbox) for segment in again_segments] == key
        np.testing.assert_array_equal(
            back.detections.areas, np.bincount(back.instance.ravel(), minlength=len(back.detections) + 1)[1:]
        )

    def test_values_outside_the_class_table_are_void(self) -> None:
        result = random_result(1, 4, 4, 0)
        strange = PanopticResult(np.full((4, 4), 200, np.uint8), result.instance, result.detections)
        ids, segments = panoptic_segments(strange, COCO)
        assert not ids.any()
        assert segments == ()

    def test_an_instance_without_a_detection_is_refused(self) -> None:
        result = random_result(1, 4, 4, 1)
        with pytest.raises(InvalidInputError, match="up to 1, the largest of the detections, got 2"):
            panoptic_segments(PanopticResult(result.semantic, result.instance * 0 + 2, result.detections), COCO)


class TestIds:
    @given(st.lists(st.integers(0, 2**24 - 1), min_size=1))
    def test_ids_survive_the_picture(self, ids: list[int]) -> None:
        np.testing.assert_array_equal(decode_ids(encode_ids(np.array([ids]))), [ids])

    def test_red_counts_ones(self) -> None:
        np.testing.assert_array_equal(encode_ids(np.array([[1 + 256 * 2 + 65536 * 3]])), [[[1, 2, 3]]])

    def test_the_picture_holds_the_segment_ids(self) -> None:
        ids, _ = panoptic_segments(random_result(3, 20, 30, 5), COCO)
        picture = encode_ids(ids)
        assert picture.dtype == np.uint8
        np.testing.assert_array_equal(picture.astype(int) @ (1, 256, 65536), ids)


class TestFiles:
    @settings(max_examples=20)
    @given(written=st.lists(results, max_size=4))
    def test_what_is_written_is_read_back(self, written: list[PanopticResult], tmp_path_factory) -> None:
        folder = tmp_path_factory.mktemp("coco")
        with CocoPanopticWriter(folder, COCO) as writer:
            for number, result in enumerate(written):
                writer.add(f"frame_{number}", result)
        annotations = read_coco_panoptic(folder / "panoptic.json")
        assert [annotation.image_id for annotation in annotations] == [f"frame_{k}" for k in range(len(written))]
        for annotation, result in zip(annotations, written, strict=True):
            ids, segments = panoptic_segments(result, COCO)
            np.testing.assert_array_equal(annotation.ids, ids)
            assert annotation.segments == segments

    def test_the_files_follow_the_format(self, tmp_path: Path) -> None:
        result = random_result(5, 20, 30, 5)
        with CocoPanopticWriter(tmp_path / "out", COCO) as writer:
            writer.add("000000142238", result)
            writer.add("drive", result, image_id=9, image_file="drive.png")
        document = json.loads((tmp_path / "out" / "panoptic.json").read_text())
        assert document["images"] == [
            {"id": 142238, "file_name": "000000142238.jpg", "height": 20, "width": 30},
            {"id": 9, "file_name": "drive.png", "height": 20, "width": 30},
        ]
        assert len(document["categories"]) == 133
        assert document["categories"][0] == {"id": 1, "name": "person", "isthing": 1, "color": [220, 20, 60]}
        first = document["annotations"][0]
        assert (first["image_id"], first["file_name"]) == (142238, "000000142238.png")
        assert set(first["segments_info"][0]) == {"id", "category_id", "area", "bbox", "iscrowd", "isthing"}
        blue, green, red = cv2.split(cv2.imread(str(tmp_path / "out" / "panoptic" / "000000142238.png")).astype(int))
        stored = Counter((red + 256 * green + 65536 * blue).ravel().tolist())
        del stored[0]
        assert stored == {segment["id"]: segment["area"] for segment in first["segments_info"]}

    def test_the_json_file_appears_at_the_end_and_alone(self, tmp_path: Path) -> None:
        (tmp_path / "panoptic.json").write_text("the run before")
        writer = CocoPanopticWriter(tmp_path, COCO)
        writer.add("a", random_result(1, 4, 4, 1))
        assert (tmp_path / "panoptic" / "a.png").exists()
        assert (tmp_path / "panoptic.json").read_text() == "the run before"
        writer.close()
        writer.close()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["panoptic", "panoptic.json"]
        assert len(json.loads((tmp_path / "panoptic.json").read_text())["annotations"]) == 1
        with pytest.raises(ValueError, match="closed"):
            writer.add("b", random_result(1, 4, 4, 1))

    def test_an_error_on_the_way_leaves_the_images_before_it(self, tmp_path: Path) -> None:
        def run() -> None:
            with CocoPanopticWriter(tmp_path, COCO) as writer:
                writer.add("a", random_result(1, 4, 4, 1))
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run()
        assert [annotation.image_id for annotation in read_coco_panoptic(tmp_path / "panoptic.json")] == ["a"]

    def test_each_image_comes_once(self, tmp_path: Path) -> None:
        result = random_result(1, 4, 4, 1)
        with CocoPanopticWriter(tmp_path, COCO) as writer:
            writer.add("1", result)
            writer.add("01", result)  # another file, another id
            with pytest.raises(InvalidInputError, match="'1'"):
                writer.add("1", result)
            with pytest.raises(InvalidInputError, match=r"'b' \(image id 1\)"):
                writer.add("b", result, image_id=1)
        assert [annotation.image_id for annotation in read_coco_panoptic(tmp_path / "panoptic.json")] == [1, "01"]

    def test_ids_are_those_that_the_data_sets_make_of_their_names(self, tmp_path: Path) -> None:
        names = {
            "000000000139.jpg": 139, "ulm_000000_000019_leftImg8bit.png": "ulm_000000_000019",
            "ulm/ulm_000001_000019_leftImg8bit_foggy_beta_0.02.png": "ulm_000001_000019", "٣.png": "٣",
            "_leftImg8bit.png": "_leftImg8bit", "0016E5_08085.png": "0016E5_08085",
        }  # fmt: skip
        with CocoPanopticWriter(tmp_path, COCO) as writer:
            for name in names:
                writer.add(name.rpartition(".")[0], random_result(1, 4, 4, 1), image_file=name)
        document = json.loads((tmp_path / "panoptic.json").read_text(encoding="utf-8"))
        assert {entry["file_name"]: entry["id"] for entry in document["images"]} == names

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_a_file_is_utf8_with_or_without_a_mark(self, tmp_path: Path, encoding: str) -> None:
        document = {"categories": [], "annotations": [{"image_id": "ü", "file_name": "ü.png", "segments_info": []}]}
        (tmp_path / "p.json").write_text(json.dumps(document, ensure_ascii=False), encoding=encoding)
        assert list(read_segments(tmp_path / "p.json")) == [("ü", "ü.png", ())]

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UnavailableError, match="file"):
            CocoPanopticWriter(tmp_path / "file", COCO)

    def test_files_that_cannot_be_read_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match=r"nothing\.json: No such file"):
            list(read_segments(tmp_path / "nothing.json"))
        for content in ("{", "[]", '{"images": []}', '{"annotations": [{}], "categories": []}'):
            (tmp_path / "bad.json").write_text(content)
            with pytest.raises(InvalidInputError, match=r"COCO-panoptic JSON file, got .*bad\.json"):
                list(read_segments(tmp_path / "bad.json"))


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"needs COCO's panoptic sample in {SAMPLE} (RT_PANOPTIC_DATA)")
class TestSample:
    def test_the_ground_truth_survives_writing_and_reading(self, tmp_path: Path) -> None:
        truth = read_coco_panoptic(SAMPLE / "panoptic_examples.json")
        assert sum(len(annotation.segments) for annotation in truth) == 50
        with CocoPanopticWriter(tmp_path, COCO) as writer:
            for annotation in truth:
                writer.add(
                    f"{annotation.image_id:012d}", result_from_segments(annotation.ids, annotation.segments, COCO)
                )
        written = read_coco_panoptic(tmp_path / "panoptic.json")
        assert [annotation.image_id for annotation in written] == [annotation.image_id for annotation in truth]
        for ours, theirs in zip(written, truth, strict=True):
            assert_same_partition(ours.ids, theirs.ids)
            our_id = dict(np.unique(np.stack([theirs.ids.ravel(), ours.ids.ravel()]), axis=1).T.tolist())
            ours_by_id = {segment.id: segment for segment in ours.segments}
            assert len(ours_by_id) == len(theirs.segments)
            for segment in theirs.segments:
                mine = ours_by_id[our_id[segment.id]]
                assert (mine.category_id, mine.area, mine.bbox) == (segment.category_id, segment.area, segment.bbox)
                assert mine.isthing == segment.isthing

    def test_categories_are_the_official_ones(self, tmp_path: Path) -> None:
        CocoPanopticWriter(tmp_path, COCO).close()
        ours = json.loads((tmp_path / "panoptic.json").read_text())["categories"]
        official = json.loads((SAMPLE / "panoptic_coco_categories.json").read_text())
        keys = ("id", "name", "isthing", "color")
        assert [[entry[key] for key in keys] for entry in ours] == [[entry[key] for key in keys] for entry in official]
