"""The audit of the books, `python -m worker verify`.

| module | what is in it |
|---|---|
| `audit` | one audit: what it proves, and its answer |
| `runner` | its questions to one snapshot of the books, slice by slice |
| `invariants` | what always holds, each with the query for the cases where it does not |
| `checkpoints` | the verified point, where the next audit may begin |
"""

from worker.verify.audit import Audit, Coverage, verify

__all__ = ["Audit", "Coverage", "verify"]
