"""The parts of the transfer runs, against their originals and against hand-made cases."""

from __future__ import annotations

import random
from pathlib import Path

import numpy
import pytest
import torch
import torchvision
from sklearn.metrics import confusion_matrix, jaccard_score
from torchvision.models.detection import maskrcnn_resnet50_fpn

from densecl_transfer import detection, segmentation
from densecl_transfer.detection_data import DataError, open_split
from densecl_transfer.initialisation import InitialisationError, resnet
from densecl_transfer.protocol import Data, Model, Protocol, ProtocolError, Training
from densecl_transfer.segmentation_data import IGNORED, Segmentation, cityscapes
from densecl_transfer.training import EndlessOrder, rate

PROTOCOLS = sorted((Path(__file__).parent / "protocols").glob("*.toml"))


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: path.stem)
def test_every_protocol_is_read(path: Path) -> None:
    protocol = Protocol.read(path)
    assert protocol.name == path.stem
    assert Protocol.of({**protocol.document(), "name": "again"}, "again").model == protocol.model


def test_a_misspelt_key_is_named() -> None:
    document = Protocol.read(PROTOCOLS[0]).document()
    document["model"]["fpn_chanels"] = 8
    with pytest.raises(ProtocolError, match="fpn_chanels.*known are.*fpn_channels"):
        Protocol.of(document, "here")
    with pytest.raises(ProtocolError, match="task is `depth`"):
        Protocol.of({**Protocol.read(PROTOCOLS[0]).document(), "task": "depth"}, "here")


@pytest.mark.parametrize("output_stride", (8, 16, 32))
def test_dilation_is_torchvisions(output_stride: int) -> None:
    torch.manual_seed(0)
    ours = torchvision.models.resnet50().eval()
    replaced = [False, output_stride < 16, output_stride < 32]
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=replaced).eval()
    theirs.load_state_dict(ours.state_dict())
    segmentation.dilate(ours, output_stride)
    assert [(m.stride, m.dilation, m.padding) for m in ours.modules() if isinstance(m, torch.nn.Conv2d)] == \
        [(m.stride, m.dilation, m.padding) for m in theirs.modules() if isinstance(m, torch.nn.Conv2d)]


@pytest.mark.parametrize("output_stride", (8, 16, 32))
def test_basic_blocks_are_dilated_too(output_stride: int) -> None:
    """A dilated network computes finer maps, among whose cells are those of the plain one."""
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, 256, 256)
    plain, dilated = (torchvision.models.resnet18().eval() for _ in range(2))
    dilated.load_state_dict(plain.state_dict())
    segmentation.dilate(dilated, output_stride)
    def maps(model: torch.nn.Module) -> torch.Tensor:
        return torch.nn.Sequential(*list(model.children())[:-2])(pixels)
    assert maps(dilated).shape[-1] == 256 // output_stride
    step = 32 // output_stride
    torch.testing.assert_close(maps(dilated)[..., ::step, ::step], maps(plain), rtol=1e-4, atol=1e-4)


def test_mask_rcnn_has_torchvisions_shapes() -> None:
    model = Model(architecture="resnet50", masks=True)
    ours = detection.build(model, None, 91).state_dict()
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    shapes = [{name: value.shape for name, value in state.items() if "num_batches" not in name and ".fc." not in name
               and "body" not in name} for state in (ours, theirs)]
    assert shapes[0] == shapes[1]


def test_a_weight_that_does_not_fit_is_named(tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, tmp_path / "whole.pth")
    loaded = resnet("resnet18", tmp_path / "whole.pth", "batch").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items() if not name.startswith("fc."))
    state["layer1.0.conv9.weight"] = state.pop("layer1.0.conv1.weight")
    state["bn1.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(InitialisationError) as raised:
        resnet("resnet18", tmp_path / "broken.pth", "batch")
    for named in ("layer1.0.conv1.weight is missing", "layer1.0.conv9.weight is unexpected", "bn1.bias is (3,)"):
        assert named in str(raised.value)


def test_segmentation_scores_are_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 5, (40, 30), generator=generator)
    found = torch.where(torch.rand(40, 30, generator=generator) < 0.6, labels,
                        torch.randint(0, 5, (40, 30), generator=generator))
    labels[:4] = IGNORED
    known = labels != IGNORED
    counts = segmentation.count(labels, found, 5)
    assert numpy.array_equal(counts, confusion_matrix(labels[known], found[known]))
    scores = segmentation.scores(counts)
    assert scores["mIoU"] == pytest.approx(100 * jaccard_score(labels[known], found[known], average="macro"))
    assert scores["accuracy"] == pytest.approx(100 * float((labels == found)[known].float().mean()))
    # A category that occurs nowhere is no failure.
    assert segmentation.scores(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))["mIoU"] == pytest.approx(
        100 * (3 / 4 + 2 / 3) / 2)


@pytest.fixture(scope="module")
def boxes(trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set of boxes and masks, in both formats."""
    folder = tmp_path_factory.mktemp("boxes")
    trainer("synth", "--kind", "detection", "--count", "6", "--val-count", "4", "--size", "192x144", "--seed", "3",
            "--out", folder / "VOC2012")
    return folder


def splits(masks: bool = True) -> Data:
    year = "VOC2012"
    if masks:
        return Data("coco", *((f"{year}/annotations/instances_{split}.json", f"{year}/JPEGImages")
                              for split in ("train", "val")))
    return Data("voc", (f"{year}/train",), (f"{year}/val",))


def test_both_formats_hold_the_same_boxes(boxes: Path) -> None:
    coco, voc = (open_split(splits(masks), boxes, "val").coco for masks in (True, False))
    def found(data) -> set:
        names = {category["id"]: category["name"] for category in data.dataset["categories"]}
        return {(Path(data.imgs[a["image_id"]]["file_name"]).name, names[a["category_id"]],
                 tuple(map(round, a["bbox"]))) for a in data.anns.values()}
    assert found(coco) == found(voc) and len(found(coco)) >= 4


def test_the_truth_is_found_and_nothing_is_not(boxes: Path) -> None:
    """pycocotools gives 100 to the truth itself, and nothing to no answer or shifted boxes."""
    test = open_split(splits(), boxes, "val")
    truth, shifted = [], []
    for annotation in test.coco.anns.values():
        answer = {key: annotation[key] for key in ("image_id", "category_id", "bbox")}
        mask = numpy.asfortranarray(test.coco.annToMask(annotation))
        answer |= {"score": 0.9, "segmentation": detection.run_lengths.encode(mask)}
        truth.append(answer)
        x, y, w, h = annotation["bbox"]
        shifted.append({**answer, "bbox": [x + w, y + h, w, h]})
    perfect = detection.scores(test, truth, masks=True)
    assert perfect == pytest.approx({f"{kind} {name}": 100.0 for kind in ("box", "mask")
                                     for name in ("AP", "AP50", "AP75")})
    assert detection.scores(test, shifted, masks=False)["box AP50"] < 5
    assert set(detection.scores(test, [], masks=True).values()) == {0.0}


def test_a_flip_moves_boxes_with_their_masks(boxes: Path) -> None:
    data = open_split(splits(), boxes, "train")
    torch.manual_seed(0)
    for index in list(range(len(data))) * 3:
        _, target = data[index]
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            y, x = numpy.nonzero(mask.numpy())
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_a_wrong_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="instances_train.json does not exist; the protocol expects COCO"):
        open_split(splits(), tmp_path, "train")
    with pytest.raises(DataError, match="expects PASCAL VOC"):
        open_split(splits(masks=False), tmp_path, "train")


def test_cityscapes_folders_and_numbers(tmp_path: Path) -> None:
    from PIL import Image
    image = tmp_path / "leftImg8bit/val/aachen/a_000_leftImg8bit.png"
    label = tmp_path / "gtFine/val/aachen/a_000_gtFine_labelIds.png"
    for path, pixels in ((image, numpy.zeros((2, 4, 3))), (label, [[7, 8, 0, 33], [26, 4, 32, 11]])):
        path.parent.mkdir(parents=True)
        Image.fromarray(numpy.asarray(pixels, numpy.uint8)).save(path)
    pairs = cityscapes(tmp_path / "val")
    assert pairs == [(image, label)]
    _, labels = Segmentation(pairs, Data("cityscapes", (), (), classes=19), None)[0]
    assert labels.tolist() == [[0, 1, 255, 18], [13, 255, 17, 2]]


def test_labels_outside_of_the_categories_are_an_error(tmp_path: Path) -> None:
    from PIL import Image
    Image.fromarray(numpy.zeros((4, 4, 3), numpy.uint8)).save(tmp_path / "a.jpg")
    Image.fromarray(numpy.full((4, 4), 30, numpy.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="category 30 of 21"):
        _ = Segmentation([(tmp_path / "a.jpg", tmp_path / "a.png")], Data("voc", (), (), classes=21), None)[0]


def test_every_image_once_a_round() -> None:
    order = list(EndlessOrder(5, 12, seed=1))
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5)) and len(order) == 12
    assert order == list(EndlessOrder(5, 12, seed=1)) != list(EndlessOrder(5, 12, seed=2))


def test_rates() -> None:
    steps = Training(iterations=90, batch=1, learning_rate=1, warmup_iterations=10)
    assert [rate(steps, i) for i in (0, 9, 59, 60, 80)] == pytest.approx([0.1, 1.0, 1.0, 0.1, 0.01])
    poly = Training(iterations=100, batch=1, learning_rate=1, schedule="poly")
    assert rate(poly, 0) == 1 and rate(poly, 50) == pytest.approx(0.5**0.9)


def test_crops_keep_pixels_and_labels_together(tmp_path: Path) -> None:
    """Grey values are the labels: after any scale, crop and flip they still agree away from edges."""
    from PIL import Image
    random.seed(0)
    blocks = numpy.kron(numpy.arange(16).reshape(4, 4), numpy.ones((20, 20))).astype(numpy.uint8)
    Image.fromarray(numpy.repeat(blocks[..., None] * 16, 3, axis=2)).save(tmp_path / "a.png")
    Image.fromarray(blocks).save(tmp_path / "label.png")
    model = Model(architecture="resnet18", crop_px=64, scale=(0.5, 1.5))
    data = Segmentation([(tmp_path / "a.png", tmp_path / "label.png")], Data("voc", (), (), classes=16), model)
    torch.manual_seed(3)
    for _ in range(10):
        image, labels = data[0]
        assert labels.shape == (64, 64) and image.shape == (3, 64, 64)
        grey = (image[0] * 0.229 + 0.485) * 255 / 16
        known = labels != IGNORED
        agree = ((grey - labels).abs() < 0.51)[known].float().mean()
        assert agree > 0.9 and known.any()
