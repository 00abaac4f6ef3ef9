"""Pictures of what the network says about pairs of the validation."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...vis.draw import draw_boxes, image_strip

_COLUMNS = 4


def prediction_picture(search: Tensor, truth_xywh: Tensor, boxes_cxcywh: Tensor, mean: Sequence[float],
                       std: Sequence[float]) -> np.ndarray:
    """Search crops side by side, with the annotated and the predicted box in each.

    Args:
        search: (B, 3, H, W) float, normalised by `mean` and `std` of images in 0..1.
        truth_xywh: (B, 4) in 0..1 of the crop.
        boxes_cxcywh: (B, 1, 4) or (B, 4) in 0..1.

    Returns:
        (H', W', 3) RGB uint8, four crops in a row.
    """
    side = search.shape[-1]
    shift, scale = (torch.tensor(values, device=search.device).reshape(1, 3, 1, 1) for values in (mean, std))
    levels = ((search.float() * scale + shift) * 255).round().clamp(0, 255).to(torch.uint8)
    images = levels.permute(0, 2, 3, 1).cpu().numpy()
    center, size = boxes_cxcywh.reshape(-1, 4).float().cpu().split(2, dim=1)
    predicted = torch.cat([center - size / 2, size], dim=1) * side
    truth = truth_xywh.float().cpu() * side
    pictures = [draw_boxes(image, {"truth": true, "prediction": box}, legend=True)
                for image, true, box in zip(images, truth.tolist(), predicted.tolist(), strict=True)]
    return image_strip(pictures, _COLUMNS)
