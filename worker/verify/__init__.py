"""The audit of the ledger, `python -m worker verify`.

| module | what is in it |
|---|---|
| `audit` | one audit: what it proves, and its result |
| `runner` | the queries of an audit on one snapshot of the ledger, slice by slice |
| `invariants` | what always holds, each with a query for the rows that break it |
| `checkpoints` | the verified point, from which the next audit may start |
"""

from worker.verify.audit import Audit, Coverage, verify

__all__ = ["Audit", "Coverage", "verify"]
