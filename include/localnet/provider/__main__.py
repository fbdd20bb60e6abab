"""Start of the Provider's process: settings from the environment, then serve."""

from __future__ import annotations

import logging

from include.localnet.provider.app import build_app
from include.localnet.provider.configuration import Configuration
from include.localnet.service import ServiceSettings, serve


class WithoutQuery(logging.Filter):
    """Cuts the query off uvicorn's access lines: it carries signatures and tokens."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record, shortened."""
        if isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, path, version, status = record.args
            record.args = (client, method, str(path).split("?", 1)[0], version, status)
        return True


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = ServiceSettings.from_environment()
    logging.getLogger("uvicorn.access").addFilter(WithoutQuery())
    serve(build_app(Configuration.from_environment(settings.state)), settings)


if __name__ == "__main__":
    main()
