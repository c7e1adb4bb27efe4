"""Those that are compared: how each is set up and called, at which settings."""

import os
import shutil

from store import ACCESS_KEY, BUCKET, REGION, SECRET_KEY


class Tool:
    """One program at one setting. A call is measured as Postgres makes it: in the data directory, as the server's user.

    `settings` are the environment variables that make the setting. `one`, `drains`, `replays` say where it takes part; `zstd`
    whether its objects can be held against ours, `slow` that a call takes seconds.
    """

    ours = zstd = slow = False
    one = drains = replays = True

    def __init__(self, machine, name, program, settings):
        self.machine, self.name, self.program, self.settings = machine, name, program, settings

    def place(self, endpoint, data, home, prefix):
        """Its variables for a repository at `prefix` behind `endpoint`, with files of its own in `home`."""
        aws = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if endpoint.scheme == "https":
            aws |= {"SSL_CERT_FILE": endpoint.ca, "AWS_CA_BUNDLE": endpoint.ca, "REQUESTS_CA_BUNDLE": endpoint.ca}
        return {
            **self.machine.environment(),
            "HOME": home,
            "PGDATA": data,
            **aws,
            **self.variables(endpoint, data, home, prefix),
            **self.settings,
        }

    def variables(self, endpoint, data, home, prefix):
        raise NotImplementedError

    def prepare(self, runner, env, data):
        """What has to be there before the first call."""

    def push(self, path):
        """The command that archives the file at %p."""
        raise NotImplementedError

    def fetch(self, name, path):
        """The command that fetches %f to %p."""
        raise NotImplementedError


class Walhalla(Tool):
    ours = zstd = True

    def variables(self, endpoint, data, home, prefix):
        spool = os.path.join(home, "spool")
        if not os.path.isdir(spool):
            os.mkdir(spool, 0o700)
            self.machine.give(spool)
        ca = {"WALHALLA_S3_CA_FILE": endpoint.ca} if endpoint.scheme == "https" else {}
        return {
            "WALHALLA_STORAGE": f"s3://{BUCKET}/{prefix}",
            "WALHALLA_S3_ENDPOINT": endpoint.url,
            "WALHALLA_SPOOL": spool,
            "WALHALLA_CONFIG": self.machine.nothing,
            **ca,
        }

    def prepare(self, runner, env, data):
        runner.must([os.path.join(self.program, "walhalla"), "init", "--data-directory", data], env, data)

    def push(self, path):
        return [os.path.join(self.program, "walhalla-archive"), path]

    def fetch(self, name, path):
        return [os.path.join(self.program, "walhalla-restore"), name, path]


class WalG(Tool):
    """WAL-G and its port, wal-rus, which share their settings."""

    def variables(self, endpoint, data, home, prefix):
        ca = {"WALG_S3_CA_CERT_FILE": endpoint.ca} if endpoint.scheme == "https" else {}
        return {
            "WALG_S3_PREFIX": f"s3://{BUCKET}/{prefix}",
            "AWS_ENDPOINT": endpoint.url,
            "AWS_S3_FORCE_PATH_STYLE": "true",
            **ca,
        }

    def push(self, path):
        return [self.program, "wal-push", path]

    def fetch(self, name, path):
        return [self.program, "wal-fetch", name, path]


class PgBackRest(Tool):
    zstd = True

    def variables(self, endpoint, data, home, prefix):
        own = {
            "TYPE": "s3",
            "PATH": f"/{prefix}",
            "S3_BUCKET": BUCKET,
            "S3_ENDPOINT": endpoint.url,
            "S3_REGION": REGION,
            "S3_KEY": ACCESS_KEY,
            "S3_KEY_SECRET": SECRET_KEY,
            "S3_URI_STYLE": "path",
        }
        if endpoint.scheme == "https":
            own["STORAGE_CA_FILE"] = endpoint.ca
        return {
            **{f"PGBACKREST_REPO1_{key}": value for key, value in own.items()},
            "PGBACKREST_PG1_PATH": data,
            "PGBACKREST_STANZA": "bench",
            "PGBACKREST_LOG_PATH": home,
            "PGBACKREST_LOCK_PATH": home,
            "PGBACKREST_SPOOL_PATH": home,
            "PGBACKREST_LOG_LEVEL_FILE": "off",
            "PGBACKREST_LOG_LEVEL_CONSOLE": "warn",
            "PGBACKREST_CONFIG": self.machine.nothing,
        }

    def prepare(self, runner, env, data):
        runner.must([self.program, "--no-online", "stanza-create"], alone(env), data)

    def push(self, path):
        return [self.program, "archive-push", path]

    def fetch(self, name, path):
        return [self.program, "archive-get", name, path]


class Barman(Tool):
    """A Python start for each segment: too slow for the long parts, where it would tell nothing new."""

    drains = replays = False
    slow = True

    def variables(self, endpoint, data, home, prefix):
        return {"BENCH_BARMAN_URL": endpoint.url, "BENCH_BARMAN_PLACE": f"s3://{BUCKET}/{prefix}"}

    def push(self, path):
        script = 'exec "$0" --gzip --endpoint-url "$BENCH_BARMAN_URL" "$BENCH_BARMAN_PLACE" bench "$1"'
        return ["/bin/sh", "-c", script, self.program, path]


def alone(env):
    """The variables without what only archive-push and archive-get understand."""
    return {
        name: value for name, value in env.items() if name not in ("PGBACKREST_ARCHIVE_ASYNC", "PGBACKREST_PROCESS_MAX")
    }


def found(machine, ours, peers):
    """Ours and, with `peers`, each that is on PATH, at its settings."""
    copies = machine.make("programs")
    for name in ("walhalla", "walhalla-archive", "walhalla-restore"):
        shutil.copy2(os.path.join(ours, name), copies)
        os.chmod(os.path.join(copies, name), 0o755)
    tools = [Walhalla(machine, "walhalla", copies, {})]
    if not peers:
        return tools
    for program, name in (("walrus", "wal-rus"), ("wal-g", "WAL-G")):
        if path := shutil.which(program):
            for method in ("zstd", "lz4"):
                ahead = {"WALG_UPLOAD_CONCURRENCY": "16", "WALG_DOWNLOAD_CONCURRENCY": "10"}
                tool = WalG(machine, f"{name} {method}", path, {"WALG_COMPRESSION_METHOD": method, **ahead})
                tool.zstd = method == "zstd"
                tools.append(tool)
    if path := shutil.which("pgbackrest"):
        zst = {"PGBACKREST_COMPRESS_TYPE": "zst", "PGBACKREST_COMPRESS_LEVEL": "3"}
        tools.append(PgBackRest(machine, "pgBackRest zst", path, zst))
        async_2 = PgBackRest(
            machine, "pgBackRest async", path, {**zst, "PGBACKREST_ARCHIVE_ASYNC": "y", "PGBACKREST_PROCESS_MAX": "2"}
        )
        async_2.one = False
        tools.append(async_2)
    if path := shutil.which("barman-cloud-wal-archive"):
        tools.append(Barman(machine, "barman-cloud gzip", path, {}))
    return tools
