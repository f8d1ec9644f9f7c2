"""The operator API: `python -m worker operator`, an HTTP API for systems that have no shell on this host.

| module | contents |
|---|---|
| `app` | the composition root: builds a Starlette application from settings, and serves it |
| `routes` | the table of operations, from which the routes and the OpenAPI document are made |
| `operation` | the type of that table's rows, and the services that handlers use |
| `handlers` | one function for each operation |
| `endpoint` | parses a request's ids, query and body, checks the role, and calls the handler |
| `middleware` | wraps every request: authentication, errors as problems, log, metrics |
| `cells` | the databases of all cells: searches them, and selects the one to change |
| `problems` | every error reply |
| `auth` | bearer tokens, and the users and roles that they belong to |
| `throttle` | limits the refused requests of an address or a user |
| `metrics` | the counters |
| `openapi` | builds the OpenAPI document |
"""
