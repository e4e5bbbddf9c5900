"""The README in Chinese says the same as that in English: headings, commands, names, numbers."""

import re

import pytest

from helpers.core.settings import ROOT
from launcher.chinese import in_chinese
from launcher.stages import RunError

ENGLISH, CHINESE = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")
)
BLOCKS = re.findall(r"<!-- ([\w-]+):begin", ENGLISH)


def block(text, name):
    (found,) = re.findall(rf"<!-- {name}:begin[^\n]*\n(.*?)\n<!-- {name}:end -->", text, re.DOTALL)
    return found


def sections(text):
    """Return the text of each section, without blocks of code and of results."""
    text = re.sub(r"```.*?```|<!-- ([\w-]+):begin.*?<!-- \1:end -->", "", text, flags=re.DOTALL)
    return re.split(r"^#+ .*$", text, flags=re.MULTILINE)


def names(section):
    """Return all that stands as code, and all that is linked to, in whichever language."""
    section = section.replace(".zh-CN", "")  # the same page in the other language
    return set(re.findall(r"`([^`]+)`", section)) | set(re.findall(r"\]\(([^)]+)\)", section))


def numbers(section):
    return set(re.findall(r"\d+(?:\.\d+)*", re.sub(r"`[^`]+`|\]\([^)]+\)", "", section)))


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_results_are_those_of_the_english_page(name):
    assert block(CHINESE, name) == in_chinese(block(ENGLISH, name))
    digits = [re.findall(r"\d[\d.,]*\d|\d", block(text, name)) for text in (ENGLISH, CHINESE)]
    assert sorted(digits[0]) == sorted(digits[1])


def test_headings_and_commands_are_the_same():
    levels = [re.findall(r"^#+", text, re.MULTILINE) for text in (ENGLISH, CHINESE)]
    assert levels[0] == levels[1]
    commands = [re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for text in (ENGLISH, CHINESE)]
    assert commands[0] == commands[1]


@pytest.mark.parametrize("number", range(len(sections(ENGLISH))))
def test_each_section_names_the_same_things_and_numbers(number):
    pair = sections(ENGLISH)[number], sections(CHINESE)[number]
    for what in (names, numbers):
        one, other = map(what, pair)
        assert one == other


def test_a_line_or_cell_without_a_translation_is_named():
    with pytest.raises(RunError, match="'new score' has no Chinese"):
        in_chinese("| layer | new score |")
    with pytest.raises(RunError, match=r"'Something else\.' has no Chinese"):
        in_chinese("Something else.")
    assert in_chinese("| kappa |\n|---|\n| -0.5 (-0.6 to 0.1) |").endswith("| -0.5 (-0.6 至 0.1) |")
