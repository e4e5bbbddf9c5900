"""The potential-permafrost domain: a rule on one covariate, fixed before any model."""

from helpers.prepare.registry import check_predictor


def in_domain(study, table):
    """Return which rows lie in the potential-permafrost domain, by the study's rule on one covariate.

    Parameters
    ----------
    study : helpers.core.study.Study
    table : pandas.DataFrame
        With the covariate `domain.covariate`; rows without a value are outside.

    Returns
    -------
    pandas.Series of bool
    """
    check_predictor(study, study.domain.covariate, "domain.covariate")
    return (table[study.domain.covariate] > study.domain.above).rename("in_domain")
