"""The operator API: `python -m worker operator`, for the platform that has no shell here.

| module | what is in it |
|---|---|
| `app` | settings in, a Starlette application out |
| `routes` | the table of operations, from which routes and document are made |
| `cells` | the books of all cells: where to look, and where to change something |
| `handlers` | one small function for each operation |
| `endpoint` | a request's ids, query and body, from bytes to values |
| `middleware` | what holds for every request: the token, faults as problems, the log, the counters |
| `problems` | every error that can be answered |
| `auth` | who asks, and what their role is |
| `throttle` | how many refusals an address or a user may collect |
| `openapi` | the document |
"""
