"""The catalogue: data sets, their citations, and model stores, by key; what `ddc:` names resolve in."""

from __future__ import annotations

from dataproc.catalogue.datasets import Dataset, Datasets
from dataproc.catalogue.models import Model, Models
from dataproc.catalogue.shares import Shares
from dataproc.catalogue.store import Store
from dataproc.database import Database

__all__ = ["Catalogue", "Dataset", "Model"]


class Catalogue:
    """All of it, on one database and one store."""

    def __init__(self, database: Database, url: str) -> None:
        """url: fsspec's, of the storage's root."""
        self.database, self.store = database, Store(url)
        self.datasets = Datasets(database, self.store)
        self.models = Models(database, self.store)
        self.shares = Shares(database)
