"""What keeps the models of the configured analyses from running: looked at before a node starts."""

from __future__ import annotations

from collections.abc import Iterator

from node.config.settings import AnalysisConfig, Config


def faults(config: Config) -> Iterator[tuple[AnalysisConfig, list[str]]]:
    """Yield each analysis with what is wrong with it: files of its model, and how far it can be shut in.

    Every file of a model folder is read, so that may take a while.
    """
    from models import registry
    from node.catalogue import catalogue
    from node.processes import confinement

    for analysis in config.analyses:
        found = []
        try:
            found += catalogue.faults(catalogue.describe(analysis.model))
        except (registry.UnknownModel, registry.UnusableModel) as error:
            found += str(error).splitlines()
        if not analysis.allow_network and not confinement.is_confinable():
            found.append(
                "this system permits not the namespaces that keep the model from the network, the archive "
                f"and the node's processes ({confinement.why_unconfinable()}); run the node where it does, "
                "or set allow_network = true to let the model reach all that the node's user does"
            )
        yield analysis, found


def exposures(config: Config) -> Iterator[tuple[AnalysisConfig, str]]:
    """Yield each analysis whose model will run although nothing keeps it from the node, and why that is."""
    from node.processes import confinement

    for analysis in config.analyses:
        if analysis.allow_network and not confinement.is_confinable():
            yield (
                analysis,
                "this system permits not the namespaces that shut a model in: with allow_network = true it "
                "has all rights of the node's user, the archive included",
            )


def problems(config: Config) -> list[str]:
    """Return everything that ``faults`` finds, each with the analysis."""
    return [
        f"{config.source}: [[analyses]] {analysis.name}: {fault}"
        for analysis, found in faults(config)
        for fault in found
    ]
