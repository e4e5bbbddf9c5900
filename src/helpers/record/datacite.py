"""The metadata of a record for DataCite (schema 4.6), and its CITATION.cff."""

from typing import Any

from helpers import __version__
from helpers.core.settings import Author
from helpers.record.form import LANGUAGES, LICENCE, REFERENCE, Description


def make_datacite(about: Description, size: int) -> dict[str, Any]:
    """Return the metadata of a record; `size` is that of all files, bytes.

    What DataCite added in 4.6 is used for the period (``Coverage``) and for the reference data set
    (``CSTR``).
    """
    record = about.study.record
    west, south, east, north = about.bounds
    titles = [{"title": about.text("title"), "lang": "en"}]
    if about.text("title", "zh") != about.text("title"):
        title = about.text("title", "zh")
        titles.append({"title": title, "lang": "zh", "titleType": "TranslatedTitle"})
    kinds = {"abstract": "Abstract", "processing": "Methods", "quality": "TechnicalInfo"}
    dates = [{"date": about.finished.date().isoformat(), "dateType": "Created"}]
    if about.period:
        dates.append({"date": "/".join(map(str, about.period)), "dateType": "Coverage"})
    reference = {
        "relatedIdentifier": REFERENCE,
        "relatedIdentifierType": "CSTR",
        "relationType": "References",
    }
    return ({"doi": record.doi} if record.doi else {}) | {
        "schemaVersion": "http://datacite.org/schema/kernel-4",
        "creators": [_creator(author) for author in record.authors],
        "titles": titles,
        "publisher": {"name": record.publisher},
        "publicationYear": str(about.finished.year),
        "subjects": [
            {"subject": word, "lang": one} for one in LANGUAGES for word in about.keywords[one]
        ],
        "dates": dates,
        "language": "en",
        "types": {"resourceTypeGeneral": "Dataset", "resourceType": "raster maps and tables"},
        "relatedIdentifiers": [reference],
        "sizes": [f"{size} bytes"],
        "formats": ["image/tiff; application=geotiff; profile=cloud-optimized", "text/csv"],
        "version": __version__,
        "rightsList": [
            {
                "rights": about.text("licence"),
                "rightsUri": LICENCE,
                "rightsIdentifier": "CC-BY-4.0",
                "rightsIdentifierScheme": "SPDX",
                "schemeUri": "https://spdx.org/licenses/",
                "lang": "en",
            }
        ],
        "descriptions": [
            {"description": about.text(name, one), "descriptionType": kind, "lang": one}
            for name, kind in kinds.items()
            for one in LANGUAGES
        ],
        "geoLocations": [
            {
                "geoLocationPlace": about.text("place") or about.text("title"),
                "geoLocationBox": {
                    "westBoundLongitude": west,
                    "eastBoundLongitude": east,
                    "southBoundLatitude": south,
                    "northBoundLatitude": north,
                },
            }
        ],
        "fundingReferences": [
            {"funderName": one.funder}
            | ({"awardNumber": one.number} if one.number else {})
            | ({"awardTitle": one.title} if one.title else {})
            for one in record.funding
        ],
    }


def _creator(author: Author) -> dict[str, Any]:
    person = bool(author.given_name)
    name = ", ".join(part for part in (author.family_name, author.given_name) if part)
    creator: dict[str, Any] = {
        "name": name,
        "nameType": "Personal" if person else "Organizational",
    }
    if person:
        creator |= {"familyName": author.family_name, "givenName": author.given_name}
    if author.orcid:
        orcid = {"nameIdentifierScheme": "ORCID", "schemeUri": "https://orcid.org"}
        creator["nameIdentifiers"] = [
            {"nameIdentifier": f"https://orcid.org/{author.orcid}", **orcid}
        ]
    if author.affiliation:
        creator["affiliation"] = [{"name": author.affiliation}]
    return creator


def make_citation(about: Description) -> dict[str, Any]:
    """Return what CITATION.cff says."""
    record = about.study.record
    people = []
    for author in record.authors:
        person = {"family-names": author.family_name, "given-names": author.given_name}
        one = person if author.given_name else {"name": author.family_name}
        orcid = f"https://orcid.org/{author.orcid}" if author.orcid else ""
        more = {"orcid": orcid, "affiliation": author.affiliation if author.given_name else ""}
        people.append(one | {key: value for key, value in more.items() if value})
    return {
        "cff-version": "1.2.0",
        "message": "If you use this data set, please cite it.",
        "type": "dataset",
        "title": about.text("title"),
        "abstract": about.text("abstract"),
        "authors": people,
        "version": __version__,
        "date-released": about.finished.date().isoformat(),
        "license": "CC-BY-4.0",
        "keywords": about.keywords["en"],
        **({"doi": record.doi} if record.doi else {}),
    }
