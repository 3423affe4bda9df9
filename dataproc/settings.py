"""All settings, read once. `DATAPROC_` environment variables win over `.env`, over secret files, over the TOML file.

docs/settings.md is generated from the descriptions here. Durations are seconds, sizes bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

KiB, MiB, GiB = 2**10, 2**20, 2**30
Seconds = Annotated[float, Field(gt=0), "seconds"]  # the word is for docs/settings.md
WholeSeconds = Annotated[int, Field(gt=0), "seconds"]
Bytes = Annotated[int, Field(gt=0), "bytes"]
Count = Annotated[int, Field(gt=0)]
UNIX_PEER = re.compile(r"unix(:[0-9]+)?")


def words_of(listed: str) -> list[str]:
    """What stands between the commas."""
    return [word for part in listed.split(",") if (word := part.strip())]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Settings(BaseSettings):
    """What an operator can set. Every name is `DATAPROC_` and the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix="DATAPROC_", env_file=".env", extra="ignore", frozen=True)

    # where it listens
    host: str = Field("127.0.0.1", description="Address to listen on. Beyond loopback, a key has to exist.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one and prints it.")
    uds: Path | None = Field(
        None, description="A unix socket to listen on instead of host and port, open to every local user as a port is."
    )
    tls_cert: Path | None = Field(None, description="PEM certificate chain; with `tls_key`, https is served.")
    tls_key: Path | None = Field(None, description="PEM private key.")
    public_url: str | None = Field(None, description="The address that clients use, where a proxy is in front.")
    forwarded_allow_ips: str = Field(
        "", description="Peers whose `X-Forwarded-For` is believed, comma-separated networks."
    )
    metrics_public: bool = Field(False, description="Show `/metrics` and the details of `/readyz` to everybody.")

    # what it stands on
    storage_url: str = Field(
        "storage", description="fsspec location of the session directories; a plain path is a local folder."
    )
    database_url: SecretStr | None = Field(
        None, description="SQLAlchemy URL; default: `dataproc.db` in a local storage folder."
    )
    modules_dir: Path = Field(Path("modules"), description="Folder whose sub-folders are modules.")
    cache_dir: Path | None = Field(
        None,
        description="Node-local folder for code copies, work directories and logs; default `.node` in a local storage folder.",
    )
    environments_dir: Path | None = Field(
        None,
        description="Folder of the environments that `dataproc module install` makes; default `environments` in `cache_dir`.",
    )
    fsync: bool = Field(
        False, description="Survive a power cut too: fsync files and folders before a call is answered."
    )

    # object storage, and several servers on one
    lease: Seconds = Field(
        15,
        description="Time for which a server has a session on object storage; it is renewed while the session is used, and when it has run out another server may take over.",
    )
    node_url: str | None = Field(
        None,
        description="Where the other servers of a cluster reach this one; default: the address that it listens on, if that is one address.",
    )
    cluster_secret: SecretStr | None = Field(
        None,
        description="The same on all servers of a cluster: they believe each other who a forwarded request came from. Needed behind gateways and proxies that are trusted by their addresses.",
    )
    copies_size: Bytes = Field(
        50 * GiB, description="Size of the local copies of sessions on object storage; the least used go first."
    )
    s3_endpoint: str | None = Field(
        None, description="URL of an S3-compatible store; default: `AWS_ENDPOINT_URL`, or Amazon's."
    )
    s3_region: str | None = Field(None, description="Region of the bucket; default: as `AWS_*` says.")
    s3_access_key_id: str | None = Field(None, description="Credentials of the store; default: as `AWS_*` says.")
    s3_secret_access_key: SecretStr | None = Field(None, description="Its secret.")
    s3_session_token: SecretStr | None = Field(None, description="The token of credentials that are temporary.")
    s3_path_style: bool | None = Field(
        None,
        description="Address the bucket in the path rather than in the host's name; default: for all endpoints but Amazon's.",
    )
    s3_timeout: float = Field(
        60.0, gt=0, description="Seconds for which the store may be silent before a request has failed."
    )
    s3_checksums: bool = Field(
        True,
        description="Send and check the newer checksums of S3, and delete objects in bulk; some compatible stores know neither.",
    )

    # who may call
    gateway_secret: SecretStr | None = Field(
        None, description="Who sends this as `Xdata-Gateway-Secret` may name the session by `Xdata-Session-Id`."
    )
    gateway_peers: str = Field(
        "",
        description="Socket addresses that are trusted gateways: comma-separated networks, `unix` (`DATAPROC_UDS`, from the server's own user or root), `unix:<uid>`.",
    )
    gateway_idle_timeout: Seconds = Field(86400, description="Life of a gateway's session after its last use.")

    request_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Calls a second that one key may make, on average; default any number."
    )
    request_burst: Count | None = Field(
        None, description="Calls that a key may make at once under `request_rate`; default those of one second."
    )
    failed_credentials: Count = Field(
        30, description="Wrong credentials a minute that one address may send before its refusals are slowed down."
    )
    audit_retention: Seconds = Field(365 * 86400, description="Time for which lines of the audit log are kept.")

    # sessions
    max_expires_in: WholeSeconds = Field(
        365 * 86400, description="The longest life that a session may have, extensions included."
    )
    max_extensions: int = Field(100, ge=0, description="How often the life of a session may be extended.")
    default_expires_in: WholeSeconds = Field(2592000, description="Life of a session that asks for none.")
    max_sessions_per_key: Count = Field(100_000, description="Sessions that one key may hold open.")
    max_sessions: Count = Field(1_000_000, description="Sessions that may be open altogether.")
    grace_period: float = Field(
        0, ge=0, description="Time for which an ended session's files are kept and can be restored."
    )
    tombstone_retention: Seconds = Field(30 * 86400, description="Time for which an ended session is remembered.")
    run_retention: Seconds = Field(90 * 86400, description="Time for which run records are kept.")
    idempotency_retention: Seconds = Field(86400, description="Time for which an idempotency key is known.")
    log_retention: Seconds = Field(30 * 86400, description="Time for which logs of runs are kept.")
    close_wait: Seconds = Field(10, description="How long a close, and a stop of the server, waits for runs under way.")
    credential_cache: float = Field(
        1.0, ge=0, le=1, description="How long a checked credential is believed without asking the database."
    )

    # the REST facade
    cra_service: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")] = Field(
        "DATAPROC", description="The name of this server among the services of the REST facade."
    )
    cra_timeout_minutes: int = Field(
        15, description="Idle life of user tokens and sessions of the REST facade in minutes; 5 to 1440."
    )

    # requests
    request_limit: Bytes = Field(16 * MiB, description="Largest JSON-RPC body.")
    json_depth: Count = Field(100, description="Deepest nesting of JSON.")
    batch_limit: Count = Field(1000, description="Most calls in a batch.")
    result_limit: Bytes = Field(1 * MiB, description="Largest result that is answered inline.")
    result_max: Bytes = Field(1 * GiB, description="Largest result at all.")
    model_limit: Bytes = Field(10 * GiB, description="Largest upload to a model store.")

    # files
    upload_limit: Bytes = Field(10 * GiB, description="Largest file that a client may put.")
    accel_prefix: str | None = Field(
        None,
        description="The internal location of nginx that is the local storage folder: files are then sent by it (`X-Accel-Redirect`), for requests that a proxy in `forwarded_allow_ips` passes on.",
    )
    session_bytes: Bytes = Field(20 * GiB, description="Bytes that the files of a session may take.")
    session_files: Count = Field(1_000_000, description="Files and directories that a session may have.")
    key_bytes: Bytes | None = Field(
        None, description="Bytes that the files of all sessions of a key may take, on whichever server they were used."
    )
    key_files: Count | None = Field(
        None, description="Files and directories that all sessions of a key may have, on whichever server."
    )
    free_space: int | None = Field(
        None,
        ge=0,
        description="Bytes that are to stay free on the disk of the storage: below, the run that writes most is ended. Default: 256 MiB, or a hundredth of a smaller disk.",
    )

    # runs
    engine: Literal["local"] = Field("local", description="Where methods run.")
    sandbox: Literal["auto", "require", "off"] = Field(
        "auto", description="`auto` starts where one wall stands, `require` demands all layers, `off` is for debugging."
    )
    worker_uid: int = Field(64999, gt=0, description="The unprivileged uid and gid of workers when the server is root.")
    network_modules: str = Field("", description="Modules that get the network they declare, comma-separated, or `*`.")
    run_timeout: Seconds = Field(300, description="Time limit of a run whose method declares none.")
    max_run_timeout: Seconds = Field(86400, description="The longest time limit that a caller or a method may ask for.")
    import_timeout: Seconds = Field(60, description="Time that the import of a module may take.")
    run_grace: Seconds = Field(5, description="Time between SIGTERM and SIGKILL where the method declares none.")
    worker_memory: Bytes = Field(2 * GiB, description="Memory of a worker's whole process tree.")
    worker_processes: Count = Field(256, description="Processes and threads of a worker's tree.")
    worker_open_files: Count = Field(1024, description="Open files of a worker's process.")
    worker_file_size: Bytes = Field(10 * GiB, description="Largest file that a worker may write.")
    worker_tmp: Bytes = Field(256 * MiB, description="Size of a worker's `/tmp`, and of its `/dev/shm`.")
    output_limit: Bytes = Field(
        16 * MiB, description="Output (stdout and stderr) kept of one run; the rest is counted."
    )
    concurrent_runs: Count = Field(
        default_factory=lambda: 4 * _cores(), description="Runs at once; default 4 times the cores."
    )
    concurrent_runs_per_key: int | None = Field(
        None, gt=0, description="Runs of one key at once; default as many as there may be at all."
    )
    concurrent_runs_per_session: int | None = Field(
        None, gt=0, description="Runs of one session at once; default as many as there may be at all."
    )
    warm_workers: int = Field(64, ge=0, description="Idle workers kept warm.")
    warm_memory: float = Field(
        0.25, gt=0, le=1, description="Share of the machine's memory that idle workers may hold."
    )
    warm_life: Seconds = Field(600, description="Idle life of a warm worker, and of a zygote without one.")
    queue_limit: int = Field(1000, ge=0, description="Calls that may wait for a worker.")
    queue_share: float = Field(0.25, gt=0, le=1, description="Share of the queue that one key may fill.")

    # telling
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log line.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is JSON unless stderr is a terminal."
    )

    @field_validator("log_level", "log_format", "sandbox", mode="before")
    @classmethod
    def _in_any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _networks(cls, value: str) -> str:
        for word in words_of(value):
            ip_network(word, strict=False)
        return value

    @field_validator("gateway_peers")
    @classmethod
    def _peers(cls, value: str) -> str:
        for word in words_of(value):
            if UNIX_PEER.fullmatch(word):
                continue
            try:
                ip_network(word)
            except ValueError as error:
                raise ValueError(f"{error}; write networks, `unix` or `unix:<uid>`") from None
        return value

    @field_validator("cra_timeout_minutes")
    @classmethod
    def _clamped(cls, value: int) -> int:
        return min(max(value, 5), 1440)

    @field_validator("storage_url")
    @classmethod
    def _storage(cls, value: str) -> str:
        if not value:
            raise ValueError("must name a folder or an fsspec URL")
        return value

    @model_validator(mode="after")
    def _together(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: set both DATAPROC_TLS_CERT and DATAPROC_TLS_KEY")
        if self.local_storage is None and self.database_url is None:
            raise ValueError("DATAPROC_DATABASE_URL is required where DATAPROC_STORAGE_URL is no local folder")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        lines = dotenv_settings.env_vars if isinstance(dotenv_settings, DotEnvSettingsSource) else {}
        said = {**lines, **{name.lower(): value for name, value in os.environ.items()}}
        sources = [init_settings, env_settings, dotenv_settings, SecretFileSource(settings_cls, said)]
        if named := said.get("dataproc_config"):
            if not Path(named).is_file():  # pydantic-settings would go on without it, silently
                raise FileNotFoundError(f"DATAPROC_CONFIG names {named}, and there is no such file")
            sources.append(TomlConfigSettingsSource(settings_cls, Path(named)))
        return tuple(sources)

    @property
    def local_storage(self) -> Path | None:
        """The storage folder where storage is local, else None."""
        url = urlsplit(self.storage_url)
        if url.scheme == "file":
            return Path(url.path).absolute()
        return Path(self.storage_url).absolute() if "://" not in self.storage_url else None

    @property
    def database(self) -> str:
        """The SQLAlchemy URL that is in force (it may hold a password)."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.local_storage}/dataproc.db"

    @property
    def node_dir(self) -> Path:
        """The node-local folder that is in force."""
        if self.cache_dir is not None:
            return self.cache_dir.absolute()
        return (self.local_storage or Path("cache").absolute()) / ".node"

    @property
    def environments(self) -> Path:
        """The folder of the modules' own environments that is in force."""
        return self.environments_dir.absolute() if self.environments_dir is not None else self.node_dir / "environments"

    def allows_network(self, module: str) -> bool:
        """Whether a module gets the network that it declares."""
        allowed = {name.strip() for name in self.network_modules.split(",")}
        return "*" in allowed or module in allowed

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.uds is not None or self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


_OTHERS = frozenset({"DATAPROC_CONFIG", "DATAPROC_URL", "DATAPROC_APIKEY", "DATAPROC_SECRET", "DATAPROC_SESSION_TOKEN"})


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none: most are misspelt."""
    known = _OTHERS | {f"DATAPROC_{name.upper()}" for name in Settings.model_fields}
    return sorted(
        name
        for name in environ
        if name.startswith("DATAPROC_") and name not in known and name.removesuffix("_FILE") not in known
    )


class SecretFileSource(PydanticBaseSettingsSource):
    """`DATAPROC_GATEWAY_SECRET_FILE=/run/secrets/x` gives what stands in that file, for every field."""

    def __init__(self, settings_cls: type[BaseSettings], said: Mapping[str, str | None]) -> None:
        """said: the variables, by their names in lower case."""
        super().__init__(settings_cls)
        self._said = said

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        named = self._said.get(f"dataproc_{field_name}_file")
        return (Path(named).read_text().strip() if named else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}
