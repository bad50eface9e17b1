"""eval.json as text: the columns, and the table of the terminal."""

from lfm_jax.train.entries import SMALL, VARIANCE

# heading, width, key; `*` marks what was made with 3D labels
COLUMNS = (
    ("flat", 7, "ne_flat"),
    ("rigid", 6, "ne_rigid_lifted"),
    ("mean*", 6, "ne_mean_shape_lifted"),
    ("start", 6, "ne_start_lifted"),
    ("OURS", 6, "ne_lifted"),
    ("rigid", 8, "ne_rigid"),
    ("mean*", 6, "ne_mean_shape"),
    ("start", 6, "ne_start"),
    ("OURS", 6, "ne_canonical"),
    ("var", 7, VARIANCE),
    ("near*", 6, "nearest_train"),
    ("2D", 6, "reprojection"),
    ("PA mm", 8, "pa_mpjpe_lifted"),
)


def results_table(eval_json: dict) -> str:
    """eval.json as plain text: every yardstick, per category and in the mean."""
    entries = eval_json["categories"]
    if not any("ne_lifted" in entry for entry in entries.values()):
        return _without_truth(eval_json)
    head = "".join(f"{title:>{width}}" for title, width, _ in COLUMNS)
    groups = f"{'lifted':>{36 + 31}}{'canonical':>26}"
    lines = [groups, f"{'category':24}{'points':>6}{'test':>6}{head}"]
    rule = "-" * len(lines[-1])
    lines.append(rule)
    for name, entry in entries.items():
        label = f"{name[:23]:24}{entry['keypoints']:6}{entry['test_frames']:6}"
        lines.append(label + _cells(entry, in_mm=entry["units"] == "mm"))
    scored = [entry for entry in entries.values() if "ne_lifted" in entry]
    small = sum("ne_lifted_interval" in entry for entry in scored)
    averaged = len(scored) or len(entries)
    lines += [rule, f"{f'mean of {averaged}':36}" + _cells(eval_json["mean"])]
    if small:
        label = f"without {small} of < {SMALL} test frames"
        lines.append(f"{label:36}" + _cells(eval_json["mean_without_small"]))
    return "\n".join([*lines, rule, *_notes(eval_json, scored)])


def _without_truth(eval_json: dict) -> str:
    """Of categories without 3D there is nothing to say but how the 2D is explained."""
    lines = [f"{'category':24}{'points':>6}{'test':>6}{'2D':>6}"]
    for name, entry in eval_json["categories"].items():
        error = cell("reprojection", entry.get("reprojection"))
        counts = f"{entry['keypoints']:6}{entry['test_frames']:6}"
        lines.append(f"{name[:23]:24}{counts}{error:>6}")
    lines.append("2D: error in the image in % of the shape's RMS radius.")
    return "\n".join([*lines, *_remarks(eval_json)])


def _cells(entry: dict, *, in_mm: bool = False) -> str:
    # one column, two statistics: a category's own ratio, the median of all ratios
    entry = {VARIANCE: entry.get(VARIANCE + "_median")} | entry
    if not in_mm:
        entry = entry | {"pa_mpjpe_lifted": None}
    return "".join(f"{cell(key, entry.get(key)):>{width}}" for _, width, key in COLUMNS)


def cell(key: str, value: float | None) -> str:
    """A number as the tables print it."""
    if value is None:
        return "-"
    if key == VARIANCE:
        return f"{value:.2f}" if value < 100.0 else "100+"
    return f"{value:.1f}"


def _notes(eval_json: dict, scored: list[dict]) -> list[str]:
    rigid = sum(e["ne_lifted"] < e["ne_rigid_lifted"] for e in scored)
    mean = sum(e["ne_lifted"] < e["ne_mean_shape_lifted"] for e in scored)
    ours = "does too" if eval_json["supervised"] else "does not"
    return [
        "lifted, canonical, near, 2D: error in % of the shape's RMS radius. "
        f"*: uses 3D labels; ours {ours}.",
        "var: variance of the predicted over that of the true shapes (mean: median). "
        "near: nearest training shape.",
        f"OURS lifted beats rigid in {rigid} of {len(scored)} categories, "
        f"mean* in {mean}.",
        *_best_flip(eval_json["mean"]),
        *_films(eval_json["mean"]),
        *_remarks(eval_json),
    ]


def _remarks(eval_json: dict) -> list[str]:
    """What is missing, category by category."""
    return [
        *(
            f"{name}: no 3D truth, so its depth sign is undetermined."
            for name, entry in eval_json["categories"].items()
            if "ne_lifted" not in entry
        ),
        *(
            f"{name}: {entry['dropped_frames']} frames with too few points dropped."
            for name, entry in eval_json["categories"].items()
            if entry.get("dropped_frames")
        ),
        *(f"skipped {name}: {why}" for name, why in eval_json["skipped"].items()),
    ]


def _best_flip(mean: dict) -> list[str]:
    if "ne_best_flip" not in mean:
        return []
    lifted, canonical = mean["ne_best_flip_lifted"], mean["ne_best_flip"]
    return [
        "OURS in the better depth sign of every frame: "
        f"lifted {lifted:.1f}, canonical {canonical:.1f}."
    ]


def _films(mean: dict) -> list[str]:
    """SA-MPJPE and SA-MPVE (train/sequences.py), where there are films."""
    shown = {"flat": "flat", "rigid_lifted": "rigid", "mean_shape_lifted": "mean*"}
    shown |= {"lifted": "OURS", "best_flip_lifted": "in the better sign of each"}
    return [
        f"{title} after one alignment per sequence: "
        + ", ".join(f"{x} {mean[f'ne_{kind}_{name}']:.1f}" for name, x in shown.items())
        + "."
        for kind, title in (("sequence", "positions"), ("velocity", "velocities"))
        if f"ne_{kind}_lifted" in mean
    ]
