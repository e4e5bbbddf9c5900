"""What a record says of itself in both languages, and the form of the national data centre."""

import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from helpers.core.classes import layer_name, layer_title
from helpers.core.files import read_yaml
from helpers.core.grid import named_crs, reference_grid, study_area
from helpers.core.settings import Author
from helpers.core.study import Study
from helpers.prepare.registry import covariates, predictor_names

LANGUAGES = ("en", "zh")

LICENCE = "https://creativecommons.org/licenses/by/4.0/"

REFERENCE = "11738.11.NCDC.NIEER.DB7274.2026"
"""CSTR of the data set whose method is followed."""

_KEYWORDS = {
    "en": ["permafrost", "ground ice", "ice content", "frozen-soil type", "random forest"],
    "zh": ["多年冻土", "地下冰", "体积含冰量", "冻土类型", "随机森林"],
}

_JOINED = {"en": ", ", "zh": "、"}


@dataclass(frozen=True)
class Description:
    """A record in words and numbers, filled from the results of its run.

    Parameters
    ----------
    study
        The study.
    numbers
        Its headline numbers.
    finished
        When the run was finished.
    texts
        Texts by name (title, abstract, source, processing, quality, coordinates, licence, citation,
        readme, place), each by language.
    keywords
        By language.
    bounds
        West, south, east and north of the study area, degrees.
    """

    study: Study
    numbers: dict[str, Any]
    finished: datetime
    texts: Mapping[str, Mapping[str, str]]
    keywords: Mapping[str, list[str]]
    bounds: tuple[float, float, float, float]

    @property
    def period(self) -> tuple[int, int] | None:
        """First and last year of the data, if the study says them."""
        record, fetched = self.study.record, self.study.open_data.values()
        years = [year for one in fetched for year in one.years or ()]
        return record.period or ((min(years), max(years)) if years else None)

    def text(self, name: str, language: str = "en") -> str:
        """Return a text in a language."""
        return self.texts[name][language]


def describe(study: Study, numbers: dict[str, Any], finished: datetime) -> Description:
    """Return the description of a run's record."""
    record = study.record
    title = _labelled(record.title or study.title or study.name, study.label)
    own = {
        "en": {"title": title, "place": record.place or study.title, "more": record.abstract},
        "zh": {
            "title": _labelled(record.title_zh or title, study.label),
            "place": record.place_zh or record.place,
            "more": record.abstract_zh,
        },
    }
    texts: dict[str, dict[str, str]] = {}
    for language, known in own.items():
        known["citation"] = citation(study, known["title"], finished, language)
        for name, text in (known | _filled(study, numbers, language, known)).items():
            texts.setdefault(name, {})[language] = text
    own_words = {"en": record.keywords, "zh": record.keywords_zh}
    labels = [study.label] if study.label else []
    keywords = {one: [*_KEYWORDS[one], *own_words[one], *labels] for one in LANGUAGES}
    west, south, east, north = (round(float(end), 4) for end in study_area(study).bounds)
    return Description(study, numbers, finished, texts, keywords, (west, south, east, north))


def _filled(
    study: Study, numbers: dict[str, Any], language: str, known: Mapping[str, str]
) -> dict[str, str]:
    """Return the texts of one language that are filled from results, by name."""
    templates = {
        name: text[language]
        for name, text in read_yaml(Path(__file__).with_name("texts.yaml")).items()
    }
    values = _values(study, numbers, language) | dict(known)

    def fill(name: str, **more: Any) -> str:
        text = templates[name].format(**(values | more))
        # YAML joins lines with spaces, which Chinese does not have.
        return re.sub(r"(?<=[^\x00-\x7f]) (?=[^\x00-\x7f])", "", text)

    values["domain"] = templates[numbers["domain"]]
    values["contents"] = templates["ice" if study.has_storage else "types"]
    fetched = [f"{one} ({one.licence})" for one in study.open_data.values()]
    listed = _JOINED[language].join(dict.fromkeys(fetched))
    values["open_data"] = fill("open_data", listed=listed) if fetched else ""
    label = fill("simulated") if study.label else ""
    abstract = [fill("abstract"), *([_total(numbers, fill)] if numbers["total"] else [])]
    abstract += [fill("area"), *([known["more"]] if known["more"] else [])]
    layers = [fill("layer", **_layer_values(name, numbers)) for name in numbers["layers"]]
    space = " " if language == "en" else ""
    texts = {
        "abstract": label + space.join(abstract),
        "source": fill("source"),
        "processing": fill("processing"),
        "quality": label + space.join([fill("quality"), *layers]),
        "coordinates": fill(study.record.publish_coordinates),
        "licence": fill("licence"),
    }
    return texts | {"readme": templates["readme"].format(**(known | texts))}


def _total(numbers: dict[str, Any], fill: Callable[..., str]) -> str:
    """Return the sentence on the ice of all layers; a total may have no interval."""
    total = numbers["total"]
    ends = {end: total[f"ice_km3_{end}"] for end in ("lower", "upper")}
    texts = {n: fill("no_interval") if end is None else f"{end:.0f}" for n, end in ends.items()}
    percent = 100 * total["interval"]
    return fill("total", ice=total["ice_km3"], water=total["water_km3"], percent=percent, **texts)


def _labelled(title: str, label: str) -> str:
    return title if not label or label in title else f"{title} ({label})"


def citation(study: Study, title: str, finished: datetime, language: str) -> str:
    """Return how to cite the record."""
    names = "; ".join(author_name(author, language) for author in study.record.authors)
    doi = f" https://doi.org/{study.record.doi}" if study.record.doi else ""
    return f"{names} ({finished.year}): {title}. {study.record.publisher}.{doi}"


def author_name(author: Author, language: str = "en") -> str:
    """Return an author's name, in English the family name first.

    Examples
    --------
    >>> author = Author(family_name="Wang", given_name="Li", name_zh="王力")
    >>> author_name(author), author_name(author, "zh")
    ('Wang, Li', '王力')
    """
    if language == "zh" and author.name_zh:
        return author.name_zh
    return ", ".join(part for part in (author.family_name, author.given_name) if part)


def _values(study: Study, numbers: dict[str, Any], language: str) -> dict[str, Any]:
    """Return what the texts are filled with."""
    titles = [layer_title(layer_name(layer)) for layer in study.layers]
    first = next(iter(numbers["layers"].values()))
    return {
        "label": study.label,
        "layers": _JOINED[language].join(titles),
        "first": titles[0],
        "resolution": f"{study.grid.resolution:g}",
        "projection": projection(study),
        "predictors": numbers["predictors"]["predictors"],
        "names": ", ".join(covariates(study)[name].long_name for name in predictor_names(study)),
        "train": first["samples"].get("train", 0),
        "test": first["samples"].get("test", 0),
        "version": numbers["version"],
        "code": numbers["code"],
        "area": numbers["area"]["km2"],
        "no_data": 100 * numbers["area"]["no_data_share"],
    }


def _layer_values(layer: str, numbers: dict[str, Any]) -> dict[str, Any]:
    own = numbers["layers"][layer]
    expected, reference = (own["maps"][name] for name in ("expected", "reference"))
    tests = [one["accuracy"]["test"] for one in (expected, reference)]
    # Where samples are no boreholes, folds may be by a column: then the test says most.
    adjusted = expected["accuracy"].get("random_adjusted", tests[0])
    return {
        "layer": layer_title(layer),
        "permafrost": expected["permafrost_km2"],
        "reference": reference["permafrost_km2"],
        "adjusted": adjusted["overall_accuracy"],
        "adjusted_lower": adjusted["overall_accuracy_lower"],
        "adjusted_upper": adjusted["overall_accuracy_upper"],
        "overall": tests[0]["overall_accuracy"],
        "overall_reference": tests[1]["overall_accuracy"],
        "kappa": tests[0]["kappa"],
        "kappa_reference": tests[1]["kappa"],
        "outside": 100 * own["outside_applicability_share"],
    }


def projection(study: Study) -> str:
    """Return the name of the projection of the maps, or its parameters."""
    crs = named_crs(reference_grid(study).crs)
    return crs.name if crs.name != "unknown" else crs.to_proj4()


def make_form(about: Description, size: int, files: int) -> dict[str, Any]:
    """Return the fields of the national data centre's form, in the order and with its names.

    `size` is that of all files, bytes. English texts stand under ``i18n``. Fields that the centre
    fills, such as the CSTR, are empty.
    """
    study, record = about.study, about.study.record
    west, south, east, north = about.bounds
    first, last = about.period or (None, None)
    texts = {
        "title": "title", "ds_abstract": "abstract", "ds_source": "source",
        "ds_process_way": "processing", "ds_quality": "quality", "ds_acq_place": "place",
        "ds_ref_way": "citation", "ds_ref_instruction": "licence",
    }  # fmt: skip
    zh = {field: about.text(name, "zh") for field, name in texts.items()}
    serving = record.authors[0]
    return {
        "title_cn": zh["title"],
        "title_en": about.text("title"),
        **{field: zh[field] for field in ("ds_abstract", "ds_source", "ds_process_way")},
        "ds_quality": f"{zh['ds_quality']}{about.text('coordinates', 'zh')}",
        "ds_acq_start_time": first and f"{first}-01-01 00:00:00",
        "ds_acq_end_time": last and f"{last}-12-31 00:00:00",
        "ds_acq_place": zh["ds_acq_place"],
        "ds_acq_lon_east": east,
        "ds_acq_lat_south": south,
        "ds_acq_lon_west": west,
        "ds_acq_lat_north": north,
        "ds_acq_alt_low": None,
        "ds_acq_alt_high": None,
        "ds_share_type": "open-access",
        "ds_total_size": size,
        "ds_files_count": files,
        "ds_format": "*.tif, *.csv, *.json",
        "ds_space_res": f"{study.grid.resolution:g}m",
        "ds_time_res": "year",
        "ds_coordinate": "WGS84",
        "ds_projection": projection(study),
        "ds_ref_way": zh["ds_ref_way"],
        "ds_ref_instruction": zh["ds_ref_instruction"],
        "ds_serv_man": author_name(serving, "zh"),
        "ds_serv_mail": record.contact,
        "doi_value": record.doi,
        "license": LICENCE,
        "ds_topic_tags": about.keywords["zh"],
        "ds_time_tags": [] if first is None else sorted({str(first), str(last)}),
        "ds_locus_tags": [zh["ds_acq_place"]],
        "ds_projects": [
            {"funder": one.funder_zh or one.funder, "number": one.number, "title": one.title}
            for one in record.funding
        ],
        "ds_contributors": [
            {
                "name": author_name(one, "zh"),
                "name_en": author_name(one),
                "orcid": one.orcid,
                "organization": one.affiliation_zh or one.affiliation,
            }
            for one in record.authors
        ],
        "i18n": {
            "en": {field: about.text(name) for field, name in texts.items()}
            | {
                "ds_topic_tags": about.keywords["en"],
                "ds_projects": [one.model_dump(exclude={"funder_zh"}) for one in record.funding],
                "organizations": [one.affiliation for one in record.authors],
            }
        },
    }


def form_text(form: dict[str, Any], language: str) -> str:
    """Return the fields of a form in one language as text to paste."""
    other = form["i18n"]["en"] | {"title_en": form["title_en"]} if language == "en" else {}
    fields = {name: other.get(name, value) for name, value in form.items() if name != "i18n"}
    lines = []
    for name, value in fields.items():
        entries = value if isinstance(value, list) else [value]
        texts = [
            "; ".join(map(str, e.values())) if isinstance(e, dict) else str(e) for e in entries
        ]
        text = "\n".join(texts) if value not in (None, []) else ""
        lines.append(f"[{name}]\n{textwrap.dedent(text)}\n")
    return "\n".join(lines)
