"""The README's blocks of results in Chinese: made from the English ones, so that numbers agree."""

import re

from launcher.stages import RunError

_PHRASES = {
    # Tables of a run
    "notebook": "笔记本",
    "seconds on 2 cores": "2 核用时（秒）",
    "all": "合计",
    "layer": "深度层",
    "map": "地图",
    "map of the reference's method": "参考数据集方法的图",
    "map of the expected area": "期望面积图",
    "permafrost, 1000 km2": "多年冻土面积（1000 km2）",
    "overall accuracy of the test": "测试样本总体精度",
    "overall accuracy": "总体精度",
    "kappa": "kappa",
    "kappa (90 % interval)": "kappa（90 % 区间）",
    "accuracy by mapped area (90 % interval)": "按成图面积加权的精度（90 % 区间）",
    "by area, a forest shown the true cells": "同左，用真值像元训练的森林（上限）",
    # Polygons
    "accuracy on": "精度来源",
    "polygons": "多边形",
    "cells": "像元",
    "test samples": "测试样本",
    "random folds": "随机折",
    "spatial blocks": "空间分块",
    "random folds of single cells": "单像元随机折",
    # Hidden worlds
    "sites": "布点方式",
    "worlds": "世界数",
    "accuracy by mapped area, less true": "面积加权精度减真值",
    "its 90 % intervals that hold": "其 90 % 区间的覆盖率",
    "bias of the total": "总储量偏差",
    "the total's 90 % intervals that hold": "总储量 90 % 区间的覆盖率",
    "those of regions above 5 km3": "储量大于 5 km3 的区域",
    "ice where there is no permafrost": "落在无多年冻土处的冰",
    "error of a cell, m of ice": "像元误差（米冰）",
    "worlds that err more where never sampled": "在从未抽样的环境中误差更大的世界",
    "random": "随机",
    "clustered": "成簇",
    "roadside": "沿路",
    "ice_seeking": "寻冰（ice_seeking）",
    "ice_seeking, surveyed": "寻冰，并已知多年冻土比例",
}
"""Cells of tables."""

_SENTENCES = {
    r"(\d+) predictors with ([\d,]+) to ([\d,]+) valid cells of (\d+) m\.": (
        r"\1 个预测因子，\4 m 网格，有效像元 \2 至 \3 个。"
    ),
    r"Target: (\w+)\.": r"制图对象：\1。",
    r"Ground ice of the layers: (\d+) km3 of ice \((\d+) km3 of water\), (\d+) % interval (\d+) to "
    r"(\d+); the truth over the same cells is (\d+) km3 of ice\. Version (\S+), code (\S+)\.": (
        r"各层地下冰合计 \1 km3 冰（\2 km3 水当量），\3 % 区间 \4 至 \5；"
        r"同一范围的真值为 \6 km3 冰。版本 \7，代码 \8。"
    ),
    r"Ground ice of the layers: (\d+) km3 of ice \((\d+) km3 of water\), (\d+) % interval (\d+) to "
    r"(\d+)\. Version (\S+), code (\S+)\.": (
        r"各层地下冰合计 \1 km3 冰（\2 km3 水当量），\3 % 区间 \4 至 \5。版本 \6，代码 \7。"
    ),
    r"Test samples and random folds are whole polygons\. Folds of single cells part them, which "
    r"makes kappa (\S+) higher: neighbouring cells of one polygon are no independent evidence\. "
    r"All notebooks together take (\d+) s on 2 cores\.": (
        r"测试样本和随机折都以整个多边形为单位。单像元折把多边形拆开，kappa 因此偏高 \1："
        r"同一多边形内的相邻像元不是独立的证据。全部笔记本在 2 核上共用 \2 秒。"
    ),
    r"Estimated against true over hidden worlds drawn anew, on the coarse grid \((.+)\):": (
        r"多个重新抽取的隐藏世界中估计值与真值的对照，粗网格（\1）："
    ),
}
"""Patterns of whole lines that are no tables, and what stands for them."""


def in_chinese(block: str) -> str:
    """Return a block of results in Chinese; RunError for what has no translation."""
    return "\n".join(map(_line, block.split("\n")))


def _line(line: str) -> str:
    if line.startswith("|"):
        return "|".join(map(_cell, line.split("|")))
    if not line:
        return line
    for pattern, chinese in _SENTENCES.items():
        if found := re.fullmatch(pattern, line):
            return found.expand(chinese)
    raise _missing(line)


def _cell(cell: str) -> str:
    text = cell.strip()
    if text in _PHRASES:
        return f" {_PHRASES[text]} "
    # Numbers, names of layers and of notebooks are the same in both.
    if re.fullmatch(r"`.*`|-*|[\d.,%+() -]+(to [\d.)-]+)?|[\d.-]+m", text):
        return cell.replace(" to ", " 至 ")
    raise _missing(text)


def _missing(text: str) -> RunError:
    remedy = "add it to src/launcher/chinese.py"
    return RunError(f"The README's line or cell '{text}' has no Chinese.", remedy)
