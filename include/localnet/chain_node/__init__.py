"""The development chain: anvil behind a journal, so that nothing it has answered is lost when it is killed.

Anvil keeps the chain in memory. This process is its only client and its miner: it carries out one change at a time,
writes it to disk before anyone can see it, and brings the same blocks back at the next start.
"""
