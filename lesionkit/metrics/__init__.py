"""Metrics of masks, lesions and depth, their tables by the kit rule, intervals, and the three claims of the method."""

from lesionkit.depth import constant_depth, luminance_depth, radial_depth
from lesionkit.metrics import claims
from lesionkit.metrics.depth import (
    affine_rmse,
    depth_edge_f1,
    depth_metrics,
    false_relief,
    median_scale,
    relief_correlation,
    spearman,
)
from lesionkit.metrics.masks import (
    LesionMatches,
    boundary_f1,
    dice,
    false_alarm,
    hausdorff95,
    iou,
    lesion_matches,
    precision,
    sensitivity,
)
from lesionkit.metrics.statistics import Interval, bootstrap_mean, paired_bootstrap
from lesionkit.metrics.tables import SIZE_BINS, best_threshold, by_size, evaluate_lesions, evaluate_masks, summarise
