"""At least thirty generated pictures of each kind that people really have, against Pillow.

`picture_files` has one file of each ordinary form; here are those that are damaged, old, or made by careless writers.
Where the pixels are not Pillow's, `docs/pictures.md` says so.
"""

from __future__ import annotations

from typing import Callable, Iterator

import pytest

import varied_containers
import varied_jpegs
import varied_orientations
import varied_tiffs
from foreign_files import ForeignFile, every_foreign_file
from picture_files import PictureFile, rgb, saved
from pixel_server import assert_pixels_of
from server_process import ServerProcess
from varied_pictures import COUNT

Kind = Callable[[], Iterator[PictureFile]]
KINDS: list[Kind] = [
    varied_orientations.exif_of_every_type,
    varied_orientations.orientations_of_tiffs,
    varied_orientations.xmp_orientations,
    varied_orientations.xmp_as_pillow_writes_it,
    varied_jpegs.jpegs_without_end,
    varied_jpegs.jpegs_without_tables,
    varied_jpegs.colour_codings,
    varied_containers.damaged_pngs,
    varied_containers.gifs_beyond_their_screen,
    varied_containers.animated_webps,
    varied_containers.bmps_with_all_headers,
    varied_containers.bmps_of_run_lengths,
    varied_tiffs.tiffs_without_lengths,
    varied_tiffs.associated_alpha,
    varied_tiffs.numbers,
    varied_tiffs.numbers_of_other_ranges,
    varied_tiffs.faxes,
    varied_tiffs.fill_order_2,
    varied_tiffs.predictors,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_thirty_of_a_kind_are_those_of_pillow(pixel_server: ServerProcess, kind: Kind):
    files = list(kind())
    assert len(files) >= COUNT
    wrong = []
    for file in files:
        try:
            assert_pixels_of(pixel_server, file)
        except AssertionError as error:
            wrong.append(f"{file.name}: {error}")
    assert not wrong, f"{len(wrong)} of {len(files)}"


@pytest.mark.parametrize("halves", [varied_jpegs.half_jpegs, varied_containers.half_pngs], ids=lambda kind: kind.__name__)
def test_half_a_picture_is_refused(pixel_server: ServerProcess, halves: Callable[[], Iterator[tuple[str, bytes]]]):
    files = list(halves())
    assert len(files) >= COUNT
    statuses = {name: pixel_server.post("/features", content, "image/jpeg").status for name, content in files}
    assert {name: status for name, status in statuses.items() if status != 422} == {}


@pytest.mark.parametrize("file", every_foreign_file(), ids=lambda file: file.name)
def test_what_is_no_picture_is_named(pixel_server: ServerProcess, file: ForeignFile):
    reply = pixel_server.post("/features", file.content, "image/jpeg")
    problem = reply.json()
    assert reply.status == 415 and problem["type"] == "/problems/unsupported-image", problem
    assert problem["detail"].startswith("image: ") and file.named in problem["detail"], problem
    assert file.hint in problem["hint"], problem


def test_the_part_is_named(pixel_server: ServerProcess):
    good, bad = saved(rgb(), format="PNG"), b"%PDF-1.7\n"
    for path, fields, part in (
        ("/features", {"image": [good, bad]}, "images[1]"),
        ("/correspondence", {"source": bad, "target": good}, "source"),
        ("/correspondence", {"source": good, "target": bad}, "target"),
        ("/correspondence", {"source": good, "target": [good, bad]}, "target[1]"),
    ):
        problem = pixel_server.post_form(path, fields).json()
        assert problem["detail"].startswith(f"{part}: the content is a PDF document"), problem
