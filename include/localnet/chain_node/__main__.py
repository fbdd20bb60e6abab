"""The chain's process: ``python -m include.localnet.chain_node``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from pathlib import Path

from aiohttp import ClientError, web

from include.localnet.chain_node.anvil import Anvil, AnvilEnded, AnvilError
from include.localnet.chain_node.app import make_app, make_runner
from include.localnet.chain_node.journal import Journal, JournalDamaged
from include.localnet.chain_node.ledger import Ledger
from include.localnet.settings import HOST

log = logging.getLogger(__name__)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m include.localnet.chain_node", description=__doc__)
    parser.add_argument("--anvil", required=True, metavar="PATH", help="the binary that runs the chain")
    parser.add_argument("--host", default=HOST, help="the address where JSON-RPC is answered")
    parser.add_argument("--port", required=True, type=int, help="where JSON-RPC is answered")
    parser.add_argument("--chain-id", required=True, type=int)
    parser.add_argument("--state", required=True, type=Path, metavar="FOLDER", help="where the chain is kept")
    parser.add_argument("--block-time", type=int, metavar="S", help="seconds between blocks, 0 for none")
    return parser


async def _serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT.

    :raises AnvilEnded: when anvil ends before
    """
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    arguments.state.mkdir(parents=True, exist_ok=True)
    anvil = Anvil(arguments.anvil, arguments.chain_id)
    ledger = Ledger(anvil, Journal(arguments.state), arguments.block_time or None)
    try:
        await ledger.restore()
        runner = make_runner(make_app(ledger))
        await runner.setup()
        await web.TCPSite(runner, arguments.host, arguments.port).start()
        endings = [stopping.wait(), anvil.ended(), ledger.mine_at_intervals(), ledger.failed()]
        tasks = [asyncio.ensure_future(ending) for ending in endings]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0] not in done:
            for task in done:
                task.result()
            raise AnvilEnded("anvil has ended")
        await runner.cleanup()
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await ledger.close()
    finally:
        await anvil.stop()


def main() -> None:
    """Serve until SIGTERM or SIGINT; end with a sentence that says why when it has to end before."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(_serve(_parser().parse_args()))
    except (AnvilEnded, AnvilError, JournalDamaged, ClientError, OSError) as error:
        raise SystemExit(f"the chain stops: {error}") from error


if __name__ == "__main__":
    main()
