"""The README's blocks of results in Chinese: made from the English ones, so that numbers agree."""

import re

from launcher.stages import RunError

_PHRASES = {
    # Layers
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
    "by area, best case: a random forest of true cells": "同左，上限：用真值像元训练的随机森林",
    # Polygons
    "accuracy on": "精度来源",
    "polygons": "多边形",
    "cells": "像元",
    "test samples": "测试样本",
    "random folds": "随机折",
    "spatial blocks": "空间分块",
    "random folds of single cells": "单像元随机折",
}
"""Cells of tables."""

_SENTENCES = {
    r"`make map` takes (\d+) min on 2 cores once its environment is there\.": (
        r"环境建好之后，`make map` 在 2 核上用时 \1 分钟。"
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
    r"Test samples and random folds are whole polygons\. Folds of single cells split them, which "
    r"makes kappa (\S+) higher: neighbouring cells of one polygon are not independent evidence\. "
    r"All notebooks together take (\d+) s on 2 cores\.": (
        r"测试样本和随机折都以整个多边形为单位。单像元折把多边形拆开，kappa 因此偏高 \1："
        r"同一多边形内的相邻像元不是独立的证据。全部笔记本在 2 核上共用 \2 秒。"
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
