"""torchvision's detectors on the meta device: a pass without values, for the list of their layers.

What a detector does with boxes depends on values: which boxes overlap, and to which level of the pyramid each belongs.
For a pass without values these steps are replaced by steps that return the largest possible number of boxes. Every
layer runs as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def run_without_values(detector: nn.Module) -> None:
    """Replace, in place, the steps of a detector that look at values; other modules are left alone.

    Args:
        detector: on the meta device: torchvision's Faster R-CNN, Mask R-CNN, Keypoint R-CNN, RetinaNet, FCOS or SSD.
    """
    part: Any = detector
    if hasattr(part, "postprocess_detections"):  # RetinaNet, FCOS, SSD
        part.postprocess_detections = _no_detections
        part.transform.postprocess = _as_it_is
    elif hasattr(part, "rpn") and hasattr(part, "roi_heads"):
        heads = part.roi_heads
        part.rpn.filter_proposals = _Proposals(part.rpn.post_nms_top_n)
        # The step behind keypoints looks at the values of each box, so there must be none.
        count = heads.detections_per_img if heads.keypoint_roi_pool is None else 0
        heads.postprocess_detections = _Detections(count)
        part.transform.postprocess = _as_it_is
        for pool in (heads.box_roi_pool, heads.mask_roi_pool, heads.keypoint_roi_pool):
            if pool is not None:
                pool.forward = _Pool(tuple(pool.output_size))


def _no_detections(*_: Any) -> list[Any]:
    return []


def _as_it_is(result: Any, *_: Any) -> Any:
    return result


class _Proposals:
    """As many proposals for every image as the detector keeps."""

    def __init__(self, count: Any) -> None:
        self.count = count  # called in the pass: the number differs in training mode

    def __call__(self, proposals: Any, objectness: Any, shapes: Any, anchors: Any) -> tuple[list[Any], list[Any]]:
        boxes = [proposals.new_empty(int(self.count()), 4) for _ in shapes]
        return boxes, [box[:, 0] for box in boxes]


class _Detections:
    """The largest number of detections that the detector returns, for every image."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, logits: Any, regression: Any, proposals: Any, shapes: Any) -> tuple[list[Any], ...]:
        boxes = [logits.new_empty(self.count, 4) for _ in shapes]
        return boxes, [box[:, 0] for box in boxes], [box[:, 0].long() for box in boxes]


class _Pool:
    """Regions cut from feature maps, one for each box."""

    def __init__(self, size: tuple[int, ...]) -> None:
        self.size = size

    def __call__(self, features: Any, boxes: Any, shapes: Any) -> Any:
        first = next(iter(features.values()))
        return first.new_empty(sum(len(box) for box in boxes), first.shape[1], *self.size)
