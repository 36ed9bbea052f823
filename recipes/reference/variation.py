"""What the two long trainings vary their images by, wider than `lesionkit.augment`.

Letters: b images of s × s pixels.
"""

import kornia
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lesionkit.augment import Augment, AugmentConfig, colour_stages, geometry_stages

# lesions of every size, colours of other hospitals
WIDE = AugmentConfig(scale=(0.55, 2.0), brightness=0.25, contrast=0.25, saturation=0.35, hue=0.04, blur=0.25)


class Variation(Augment):
    """For the segmenter. As `Augment`, but what a warp lays bare shows the frame's own tissue, lesions included.

    light: probability of one that falls off towards a side. mix, looks: shares of the images that get a rectangle of
    another one, and the colours of another one; see `cut_mix` and `borrowed`.
    """

    def __init__(self, config: AugmentConfig = WIDE, light: float = 0.3, mix: float = 0.0, looks: float = 0.0):
        super().__init__()
        uneven = kornia.augmentation.RandomLinearIllumination(gain=(0.05, 0.3), p=light)
        stages = [*geometry_stages(config, "reflection"), *colour_stages(config), uneven]
        self.stages = kornia.augmentation.AugmentationSequential(*stages, data_keys=None)
        self.mix, self.looks = mix, looks

    def forward(self, image: Tensor, *maps: Tensor) -> list[Tensor]:
        image, *maps = super().forward(image, *maps)
        if self.looks:
            image = borrowed(image, self.looks)
        return cut_mix([image, *maps], self.mix) if self.mix else [image, *maps]

    def extra_repr(self) -> str:
        return f"mix={self.mix}, looks={self.looks}"


def borrowed(image: Float[Tensor, "b 3 s s"], share: float) -> Float[Tensor, "b 3 s s"]:
    """A `share` of the images in the colours of the image before it: mean and deviation of each channel over what is
    not black (Reinhard et al., 2001, without their colour space). Where lesion-free frames come from one hospital and
    lesions from another, the look of a frame must not tell which it is."""
    seen = (image.amax(1, keepdim=True) > 0).float()
    count = seen.sum((2, 3), keepdim=True).clamp_min(1)
    mean = (image * seen).sum((2, 3), keepdim=True) / count
    spread = (((image - mean) * seen).square().sum((2, 3), keepdim=True) / count).sqrt().clamp_min(0.02)
    dressed = (image - mean) / spread * spread.roll(1, 0) + mean.roll(1, 0)
    chosen = (torch.rand(len(image), 1, 1, 1) < share).to(image.device)
    return torch.where(chosen & (seen > 0), dressed.clamp(0.004, 1), image)


def cut_mix(together: list[Float[Tensor, "b _ s s"]], share: float) -> list[Tensor]:
    """Into a `share` of the images of a batch a rectangle of the image before it, with all its maps (CutMix, Yun et
    al., ICCV 2019): a lesion cannot be known by the rest of its frame. The rectangles have 8 to 50 % of the area, less
    what lies outside the frame."""
    b, _, h, w = together[0].shape
    area, aspect = torch.empty(b, 1, 1, 1).uniform_(0.08, 0.5), torch.empty(b, 1, 1, 1).uniform_(-0.5, 0.5).exp()
    rows, columns = ((torch.arange(n) + 0.5) / n for n in (h, w))
    y, x, chosen = torch.rand(3, b, 1, 1, 1)
    across = (columns - x).abs() < (area / aspect).sqrt() / 2  # b×1×1×w
    down = (rows[:, None] - y).abs() < (area * aspect).sqrt() / 2  # b×1×h×1
    inside = (across & down & (chosen < share)).to(together[0].device)
    return [torch.where(inside, values.roll(1, dims=0), values) for values in together]


class Views(nn.Module):
    """For depth: the eight symmetries of a square; most frames with a round or octagonal opening cut to the square
    within, as many archives show them, some full ones to a part; colours and blur of the image alone, by `config`,
    whose geometry is not used; and a share `coarse` of the images with half the pixels, enlarged again.

    Call with the image b×3×s×s and maps b×1×s×s, the view last, as floats or as `depth_stages.packed` has them;
    returns floats in that order. A frame is full when 97 % of it is view. Random numbers come from torch's global
    generator.
    """

    INNER, CUT, ZOOMED, SMALLEST = 0.7, 0.6, 0.3, 0.75  # side of the inner square; shares; least side of a full frame

    def __init__(self, config: AugmentConfig | None = None, coarse: float = 0.0):
        super().__init__()
        self.colours, self.coarse = nn.Sequential(*colour_stages(config or AugmentConfig())), coarse

    def forward(self, image: Tensor, *maps: Tensor) -> list[Tensor]:
        image, *maps = unpacked(image, *maps)
        theta = self.transforms(maps[-1].mean((1, 2, 3)).cpu() > 0.97).to(image.device)
        grid = F.affine_grid(theta, list(image.shape), align_corners=False)
        how = {"padding_mode": "border", "align_corners": False}
        image = F.grid_sample(image, grid, mode="bilinear", **how)
        moved = F.grid_sample(torch.cat(maps, 1), grid, mode="nearest", **how)
        image = self.colours(image).clamp(0, 1)
        return [coarsened(image, self.coarse) if self.coarse else image, *moved.split(1, 1)]

    def extra_repr(self) -> str:
        return f"coarse={self.coarse}"

    def transforms(self, full: Bool[Tensor, " b"]) -> Float[Tensor, "b 2 3"]:
        """For `affine_grid`: which part of its frame each view is, and which way round; full: no dark surround."""
        b = len(full)
        inner = ~full & (torch.rand(b) < self.CUT)
        part = torch.where(torch.rand(b) < self.ZOOMED, torch.empty(b).uniform_(self.SMALLEST, 1), 1.0)
        side = torch.where(inner, self.INNER, part)
        x, y = (torch.randint(0, 2, (2, b)) * 2 - 1) * side
        turned = torch.rand(b) < 0.5
        rows = torch.where(turned, torch.stack([0 * x, x, y, 0 * y]), torch.stack([x, 0 * x, 0 * y, y]))
        reach = torch.where(inner, 0.15, 0.7) * (1 - side)  # an inner square stays near the middle
        return torch.cat([rows.T.reshape(b, 2, 2), ((torch.rand(b, 2) * 2 - 1) * reach[:, None])[:, :, None]], 2)


def coarsened(image: Float[Tensor, "b 3 s s"], share: float) -> Float[Tensor, "b 3 s s"]:
    """A `share` of the images at half the resolution, enlarged to s again: one pixel of four is kept, as a renderer of
    half the size has it, or the mean of four, as a small copy has it."""
    y, x, mean = torch.randint(0, 2, (3,)).tolist()
    small = F.avg_pool2d(image, 2) if mean else image[..., y::2, x::2]
    large = F.interpolate(small, size=image.shape[2:], mode="bilinear", align_corners=False)
    return torch.where((torch.rand(len(image), 1, 1, 1) < share).to(image.device), large, image)


def unpacked(image: Tensor, *maps: Tensor) -> list[Float[Tensor, "b _ s s"]]:
    """Floats again of what was kept in few bytes: an image of 0 to 255, maps of any kind. Floats stay as they are."""
    scale = 255 if image.dtype == torch.uint8 else 1
    return [image.float() / scale, *(values.float() for values in maps)]
