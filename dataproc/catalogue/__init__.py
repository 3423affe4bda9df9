"""The catalogue: data sets, their citations, and model stores, by key; what `ddc:` names resolve in."""

from __future__ import annotations

from pathlib import Path

from dataproc.catalogue.datasets import Dataset, Datasets
from dataproc.catalogue.models import Model, Models
from dataproc.catalogue.renditions import Renditions
from dataproc.catalogue.results import Results
from dataproc.catalogue.shares import Shares
from dataproc.catalogue.store import Store
from dataproc.database import Database
from dataproc.settings import Settings

__all__ = ["Catalogue", "Dataset", "Model"]


class Catalogue:
    """All of it, on one database and one store."""

    def __init__(self, database: Database, settings: Settings, local: Path) -> None:
        """local: a folder of this machine, on the file system of the sessions' folders."""
        store = Store.of(settings)
        self.renditions = Renditions(local / "renditions", store)
        self.datasets = Datasets(database, store, self.renditions)
        self.models = Models(database, store)
        self.results = Results(database, store, self.datasets, self.models)
        self.shares = Shares(database)
