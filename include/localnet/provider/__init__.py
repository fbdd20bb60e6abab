"""Ocean Provider: encrypts and decrypts, quotes fees, checks orders, hands out files, starts compute jobs.

Paths, payloads, status codes and error texts are those of the upstream Ocean Provider 2.1.6
(https://github.com/oceanprotocol/provider). Where upstream is wrong, the code does the right thing and says so.
"""
